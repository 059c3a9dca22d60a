"""The art of the emoji world: every concept drawn in four aligned styles, as RGBA sprites.

The sprites ship in the package as one WebP atlas a style; `build_art` makes them from the npm
packages named in `art_sources`.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from flowsteer.emoji.art_sources import (
    ART_PACKAGES,
    NAMES_PACKAGE,
    PACKAGES,
    STYLES,
    SvgSource,
    WebpSource,
    emoji_key,
    read_labels,
    read_tarball,
)
from flowsteer.emoji.concepts import (
    Concept,
    concepts_from_json,
    concepts_to_json,
    make_concepts,
    parse_selection,
    selection_text,
)

SPRITE = 112
"""Side of a sprite in pixels; the drawing's longer side fills all but one pixel on each edge."""

_COLUMNS = 32


_LICENCES = """\
Apache-2.0: <https://www.apache.org/licenses/LICENSE-2.0>; its text is in this project's LICENSE.
CC-BY-4.0: <https://creativecommons.org/licenses/by/4.0/>. MIT, for Fluent Emoji (Copyright (c)
Microsoft Corporation), their npm packing (LobeHub) and emojibase (Copyright (c) Miles Johnson):

> Permission is hereby granted, free of charge, to any person obtaining a copy of this software and
> associated documentation files (the "Software"), to deal in the Software without restriction,
> including without limitation the rights to use, copy, modify, merge, publish, distribute,
> sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is
> furnished to do so, subject to the following conditions:
>
> The above copyright notice and this permission notice shall be included in all copies or
> substantial portions of the Software.
>
> THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT
> NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND
> NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM,
> DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
> OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""


@dataclass(frozen=True)
class Art:
    """Concepts and their pictures.

    Attributes:
        concepts: the C concepts.
        pictures: uint8 (C, 4, 112, 112, 4): concept, style (in the order of STYLES), row, column,
            RGBA with straight alpha.
    """

    concepts: tuple[Concept, ...]
    pictures: Tensor


def fit_sprite(picture: Image.Image, side: int = SPRITE) -> Image.Image:
    """Crop an RGBA picture to what is visible, scale and centre it in a square of `side` pixels."""
    alpha = np.asarray(picture)[..., 3] > 16
    rows, columns = np.flatnonzero(alpha.any(1)), np.flatnonzero(alpha.any(0))
    box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    scale = (side - 2) / max(box[2] - box[0], box[3] - box[1])
    size = [max(1, round((box[k + 2] - box[k]) * scale)) for k in (0, 1)]
    drawn = picture.resize((size[0], size[1]), Image.Resampling.LANCZOS, box=box)
    sprite = Image.new("RGBA", (side, side))
    sprite.paste(drawn, ((side - size[0]) // 2, (side - size[1]) // 2))
    return sprite


def _atlas(sprites: list[Image.Image]) -> bytes:
    rows = -(-len(sprites) // _COLUMNS)
    atlas = Image.new("RGBA", (_COLUMNS * SPRITE, rows * SPRITE))
    for number, sprite in enumerate(sprites):
        row, column = divmod(number, _COLUMNS)
        atlas.paste(sprite, (column * SPRITE, row * SPRITE))
    buffer = io.BytesIO()
    atlas.save(buffer, format="WEBP", quality=80, method=6, alpha_quality=90)
    return buffer.getvalue()


def _attribution() -> str:
    lines = [
        "# Where the emoji art comes from",
        "",
        "The atlases `art-*.webp` hold pictures of these packages, cropped, scaled to 112 pixels",
        "and stored as lossy WebP; the names in `concepts.json` come partly from emojibase.",
        "",
        "| part | npm package | version | author | licence | source |",
        "|---|---|---|---|---|---|",
    ]
    parts = {package.name: f"`art-{style}.webp`" for style, package in ART_PACKAGES.items()}
    for package in PACKAGES:
        part = parts.get(package.name, "`concepts.json`")
        lines.append(
            f"| {part} | {package.name} | {package.version} | {package.author} "
            f"| {package.licence} | {package.url} |"
        )
    return "\n".join([*lines, "", _LICENCES])


def build_art(
    tarballs: Mapping[str, str | Path] | str | Path | None, output_dir: str | Path
) -> list[Path]:
    """Build the packed art from the npm packages; the same packages give the same bytes.

    Needs `resvg_py` to draw the SVG sets.

    Args:
        tarballs: a folder of `npm pack` files, a mapping from package name to file, or None to
            fetch the pinned versions from the npm registry.
        output_dir: where art-*.webp, concepts.json, held_out.json and ATTRIBUTION.md are written.

    Returns:
        The files written.

    Raises:
        ValueError: if a package is missing or another version, or a concept is not in all four.
    """
    from flowsteer.emoji.scenes import held_out_json

    data = {package.name: read_tarball(package, tarballs) for package in PACKAGES}
    rows = parse_selection(selection_text())
    labels = read_labels(data[NAMES_PACKAGE.name])
    known = {emoji: labels[key] for emoji, *_ in rows if (key := emoji_key(emoji)) in labels}
    concepts = make_concepts(rows, known)
    files: dict[str, bytes] = {}
    for style, package in ART_PACKAGES.items():
        source = (WebpSource if style == "3d" else SvgSource)(data[package.name])
        lacking = [c.name for c in concepts if emoji_key(c.emoji) not in source]
        if lacking:
            raise ValueError(f"{package.name} does not draw {', '.join(lacking)}; unlist them")
        files[f"art-{style}.webp"] = _atlas(
            [fit_sprite(source.picture(emoji_key(c.emoji))) for c in concepts]
        )
    files["concepts.json"] = concepts_to_json(concepts).encode()
    files["held_out.json"] = held_out_json(concepts).encode()
    files["ATTRIBUTION.md"] = _attribution().encode()
    folder = Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return [folder / name for name in files]


def read_art(folder: Path | None = None) -> Art:
    """Read packed art from a folder, or the bundled one.

    Raises:
        ValueError: if a file is missing from the folder.
    """
    root = resources.files("flowsteer.emoji") / "data" if folder is None else folder
    files = [root / name for name in ("concepts.json", *(f"art-{s}.webp" for s in STYLES))]
    for file in files:
        if not file.is_file():
            raise ValueError(f"art file {file} is missing; build it with `flowsteer emoji data`")
    concepts = concepts_from_json(files[0].read_text("utf-8"))
    pictures = np.empty((len(concepts), len(STYLES), SPRITE, SPRITE, 4), np.uint8)

    def unpack(number: int) -> None:
        content = io.BytesIO(files[1 + number].read_bytes())
        atlas = np.asarray(Image.open(content).convert("RGBA"))
        grid = atlas.reshape(-1, SPRITE, _COLUMNS, SPRITE, 4).swapaxes(1, 2)
        pictures[:, number] = grid.reshape(-1, SPRITE, SPRITE, 4)[: len(concepts)]

    with ThreadPoolExecutor(len(STYLES)) as pool:  # decoding lets go of the interpreter's lock
        list(pool.map(unpack, range(len(STYLES))))
    return Art(concepts, torch.from_numpy(pictures))


@lru_cache(maxsize=1)
def load_art() -> Art:
    """The bundled art (read once, then kept)."""
    return read_art()


def closest_pairs(
    pictures: Tensor, count: int = 20, side: int = 16
) -> list[tuple[int, int, float]]:
    """The concepts that look most alike: (i, j, distance), closest first.

    The distance is the root mean square difference of the sprites over gray at `side` pixels,
    averaged over styles; 0 is equal.

    Args:
        pictures: uint8 (c, s, h, w, 4) straight-alpha sprites, h and w multiples of side.
        count: how many pairs.
        side: pixels to compare at.
    """
    block = pictures.shape[2] // side
    colours = pictures.float() / 255
    alpha = colours[..., 3:]
    over_gray = torch.cat([colours[..., :3] * alpha + 0.5 * (1 - alpha), 0.5 * alpha], -1)
    coarse = over_gray.unflatten(2, (side, block)).unflatten(4, (side, block)).mean((3, 5))
    flat = coarse.flatten(2).transpose(0, 1)
    distance = (torch.cdist(flat, flat) / flat.shape[-1] ** 0.5).mean(0)
    first, second = torch.triu_indices(len(distance), len(distance), 1)
    order = distance[first, second].argsort()[:count]
    return [(int(first[k]), int(second[k]), float(distance[first[k], second[k]])) for k in order]
