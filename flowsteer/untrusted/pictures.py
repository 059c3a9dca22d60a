"""Pictures of common formats and bounded size."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
MOST_PICTURE_BYTES = 200_000_000
MOST_PIXELS = 100_000_000  # 10,000 x 10,000, which takes 300 MB as RGB

# what Pillow raises on broken files, from its readers of twenty years
_DECODING_ERRORS = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


@contextmanager
def decoding(
    file: BinaryIO,
    where: str,
    formats: tuple[str, ...] = FORMATS,
    shrink_to: int | None = None,
    most_pixels: int = MOST_PIXELS,
) -> Iterator[Image.Image]:
    """A picture for the block, in which whatever Pillow raises becomes one line.

    Args:
        file: open at its begin.
        where: it comes from, for messages.
        formats: that are tried; others, such as EPS, run programs.
        shrink_to: a JPEG is decoded at a fraction of its size where that leaves so many pixels a
            side.
        most_pixels: limit of width times height.

    Raises:
        ValueError: if it is no picture, broken, of another format or too large.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our limit is lower
            image = Image.open(file, formats=formats)
        with image:
            if shrink_to is not None:
                image.draft(None, (shrink_to, shrink_to))
            if image.width * image.height > most_pixels:
                raise ValueError(
                    f"{image.width:,} x {image.height:,} pixels, {most_pixels:,} in all at most"
                )
            yield image
    except UnidentifiedImageError as error:
        kinds = " or ".join(formats)
        raise ValueError(
            f"{where} is not readable as a picture; save it as {kinds}, or take it out"
        ) from error
    except _DECODING_ERRORS as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"{where} is not readable as a picture ({reason}); repair it or take it out"
        ) from error
