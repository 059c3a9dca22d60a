"""Captioned pictures of a folder, laid out in one of two ways.

metadata.jsonl, cat.png, …    a line each: {"file_name": "cat.png", "text": "a cat on a chair"}
cat.png, cat.txt, …           the caption in a text file of the picture's name
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from flowsteer.untrusted import (
    MOST_PICTURE_BYTES,
    decoding,
    name_of,
    open_regular,
    parse_json,
    read_lines,
    read_text,
)
from flowsteer.validation import shorten

METADATA = "metadata.jsonl"
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
MAX_CAPTION_CHARACTERS = 10_000  # encoders read the first hundreds; a tokenizer reads them all
MOST_METADATA_BYTES = 200_000_000  # a million captioned pictures
_MOST_CAPTION_BYTES = 1_000_000


def captioned_pictures(folder: Path) -> list[tuple[Path, str]]:
    """Every picture and its caption, white space in it made single spaces.

    Subfolders count too. Where there is a metadata.jsonl, it alone says what is used; "caption"
    may stand for "text". Links to files are followed.

    Raises:
        ValueError: if there is no picture, a caption or picture is missing or too long, or a file
            is no regular one, too large or not UTF-8.
    """
    if not os.path.isdir(folder):
        raise ValueError(f"{name_of(folder)} is no folder; name one with captioned pictures")
    pairs = _listed(folder) if os.path.lexists(folder / METADATA) else _beside(folder)
    pairs = [(file, " ".join(text.split())) for file, text in pairs]
    most = MAX_CAPTION_CHARACTERS
    too_long = [file for file, text in pairs if len(text) > most]
    refuse(too_long, f"has a caption of more than {most:,} characters; shorten it")
    return pairs


def _listed(folder: Path) -> list[tuple[Path, str]]:
    """Pictures and captions as metadata.jsonl names them, the layout of HF's imagefolder."""
    metadata = folder / METADATA
    pairs = []
    lines = read_lines(metadata, "a list of pictures", MOST_METADATA_BYTES)
    for place, line in enumerate(lines, start=1):
        if line.strip():
            pairs.append(_listed_line(folder, line, f"{name_of(metadata)}, line {place}"))
    if not pairs:
        raise ValueError(f"{name_of(metadata)} is empty; write a line for each picture")
    absent = [file for file, _ in pairs if not os.path.isfile(file)]
    refuse(absent, f"is named in {METADATA}, not there as a file")
    return pairs


def _listed_line(folder: Path, line: str, where: str) -> tuple[Path, str]:
    example = '{"file_name": "cat.png", "text": "a cat on a chair"}'
    try:
        entry = parse_json(line, where)
    except ValueError as error:
        raise ValueError(f"{error}; write it as {example}") from error
    name = entry.get("file_name") if isinstance(entry, dict) else None
    text = entry.get("text", entry.get("caption")) if isinstance(entry, dict) else None
    if not isinstance(name, str) or not isinstance(text, str):
        raise ValueError(
            f"{where} = {shorten(line)} lacks file_name or text; write it as {example}"
        )
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise ValueError(
            f"{where} names {shorten(name)}, which leads out of the folder; put the picture, or a"
            " link to it, inside"
        )
    return folder / name, text


def _beside(folder: Path) -> list[tuple[Path, str]]:
    """Every picture below a folder with the text file beside it, by name."""
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and not path.is_dir()
    )
    if not files:
        kinds = ", ".join(suffix[1:] for suffix in SUFFIXES)
        raise ValueError(
            f"{name_of(folder)} has no picture ({kinds}); name a folder with captioned ones"
        )
    refuse([file for file in files if not file.is_file()], "is no regular file; take it out")
    captions = [file.with_suffix(".txt") for file in files]
    lacking = [f for f, path in zip(files, captions, strict=True) if not os.path.lexists(path)]
    beside = "write it beside, as NAME.txt, or all in"
    refuse(lacking, f"has no caption; {beside} {name_of(folder / METADATA)}")
    return [
        (file, read_text(path, "a caption", _MOST_CAPTION_BYTES))
        for file, path in zip(files, captions, strict=True)
    ]


def refuse(files: Sequence[Path], message: str) -> None:
    """Raise ValueError about files, the first by name, if there are any."""
    if files:
        more = f" (and {len(files) - 1:,} more)" if len(files) > 1 else ""
        raise ValueError(f"{name_of(files[0])}{more} {message}")


def read_picture(path: str | Path, size: int) -> Tensor:
    """A picture's centre square, (3, size, size) in [-1, 1].

    It is turned as its EXIF data say and laid over white where it is transparent.

    Raises:
        ValueError: if the file is not readable as a picture, or too large.
    """
    with (
        open_regular(path, "a picture", MOST_PICTURE_BYTES) as file,
        decoding(file, name_of(path), shrink_to=2 * size) as opened,
    ):
        image = _over_white(ImageOps.exif_transpose(opened))
        side = min(image.size)
        left, top = (image.width - side) / 2, (image.height - side) / 2
        box = (left, top, left + side, top + side)
        image = image.resize((size, size), Image.Resampling.LANCZOS, box=box)
    pixels = torch.from_numpy(np.array(image))
    return pixels.permute(2, 0, 1).float().div_(127.5).sub_(1)


def _over_white(image: Image.Image) -> Image.Image:
    """Any picture as RGB."""
    if image.mode.startswith("I;16"):  # Pillow would cut 16 bits off at 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
