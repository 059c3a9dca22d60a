"""PNG files that say how they were made, and sheets of pictures side by side."""

from __future__ import annotations

import hashlib
import json
import os
import re
import uuid
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from itertools import count
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

import flowsteer
from flowsteer.comparing import Card
from flowsteer.flow.grids import format_grid
from flowsteer.generation import Picture, Settings
from flowsteer.students import student_title
from flowsteer.untrusted import MOST_PICTURE_BYTES, decoding, name_of, open_regular, parse_json

TEXT_KEY = "flowsteer"
"""Keyword of the PNG text chunk; its value is a JSON object."""
_MARGIN = 12
_LINE = 18


def picture_record(picture: Picture, dtype: str = "float32") -> dict[str, Any]:
    """What a picture's text chunk says: model, prompt, seed, settings, grid, NFE and versions."""
    return {
        "model": picture.model,
        "dtype": dtype,
        "prompt": picture.prompt,
        "seed": picture.seed,
        **settings_record(picture.settings),
        "sigmas": list(picture.sigmas),
        "nfe": picture.nfe,
        "grid_mismatch": picture.grid_mismatch,
        "versions": versions(),
    }


def comparison_record(
    prompt: str, seed: int, model: str, cards: Sequence[Card], dtype: str = "float32"
) -> dict[str, Any]:
    """What a comparison sheet's text chunk says."""
    columns = [
        {
            "key": card.column.key,
            "title": card.column.title,
            **settings_record(card.column.settings),
            "sigmas": list(card.sigmas),
            "nfe": card.nfe,
            "distance": card.distance,
            "grid_mismatch": card.grid_mismatch,
        }
        for card in cards
    ]
    return {
        "model": model,
        "dtype": dtype,
        "prompt": prompt,
        "seed": seed,
        "columns": columns,
        "versions": versions(),
    }


def settings_record(settings: Settings) -> dict[str, Any]:
    """Settings as JSON values."""
    return asdict(settings)


def versions() -> dict[str, str]:
    """Versions of what a picture's exact values depend on."""
    found = {"flowsteer": flowsteer.__version__}
    for package in ("diffusers", "torch"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def save_png(image: Image.Image, path: str | os.PathLike[str], record: dict[str, Any]) -> Path:
    """Write a PNG with its record in a text chunk, in one move: whole or not at all.

    Folders on the way are made. An older file of that name is replaced.

    Returns:
        The path.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    text = PngInfo()
    text.add_text(TEXT_KEY, json.dumps(record))  # JSON escapes keep the chunk plain ASCII
    aside = target.with_name(f".{target.stem}-{uuid.uuid4().hex}.png")
    try:
        with open(aside, "xb") as file:
            image.save(file, format="PNG", pnginfo=text)
        os.replace(aside, target)
    finally:
        aside.unlink(missing_ok=True)
    return target


def read_record(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The record of a PNG that `save_png` wrote.

    Raises:
        ValueError: if the file is no PNG, or carries no record that is a JSON object.
    """
    where = name_of(path)
    with (
        open_regular(path, "a picture", MOST_PICTURE_BYTES) as file,
        decoding(file, where, ("PNG",)) as image,
    ):
        text = image.info.get(TEXT_KEY)
    if not isinstance(text, str):
        raise ValueError(f"{where} has no {TEXT_KEY!r} text chunk; flowsteer writes one")
    record = parse_json(text, f"the {TEXT_KEY!r} text chunk of {where}")
    if not isinstance(record, dict):
        raise ValueError(f"the {TEXT_KEY!r} text chunk of {where} holds no JSON object")
    return record


def free_path(path: Path, record: dict[str, Any]) -> Path:
    """The path itself where nothing lies or the same picture does, else with a number after it.

    Nothing that was drawn with other settings, and no file of anyone else, is replaced.
    """
    for number in count(2):
        if not os.path.lexists(path) or _draws_the_same(path, record):
            return path
        stem = path.stem if number == 2 else path.stem.rpartition("-")[0]
        path = path.with_name(f"{stem}-{number}.png")
    raise AssertionError("numbers do not end")


def _draws_the_same(path: Path, record: dict[str, Any]) -> bool:
    """Whether a PNG's record names the same picture, on whatever versions."""
    try:
        there = read_record(path)
    except ValueError:  # no picture of ours
        return False
    return {**there, "versions": None} == {**json.loads(json.dumps(record)), "versions": None}


def picture_name(picture: Picture, index: int, dtype: str = "float32") -> str:
    """A file name such as 000-a-3d-koala-teacher-4x2-g7-seed0.png: what differs is in it."""
    settings = picture.settings
    calls = picture.nfe // len(picture.sigmas[1:])
    parts = [f"{index:03d}", prompt_slug(picture.prompt), *model_parts(picture.model, dtype)]
    parts.append(slug(student_title(settings.student) if settings.student else "teacher"))
    parts.append(f"{settings.num_inference_steps}x{calls}")
    if calls > 1:
        parts.append(f"g{settings.guidance_scale:g}")
    if settings.scheduler != "rectified":
        parts.append(settings.scheduler)
    if picture.grid_mismatch:
        parts.append("grid-mismatch")
    return "-".join([*parts, f"seed{picture.seed}"]) + ".png"


def model_parts(model: str, dtype: str) -> list[str]:
    """What a file name says of the model and its precision; nothing of emoji in float32."""
    named = [] if model == "emoji" else [slug(Path(model).name)]
    return named if dtype == "float32" else [*named, dtype]


def prompt_slug(prompt: str) -> str:
    """`slug`, with a mark of the whole prompt where letters of it are left out."""
    short, whole = slug(prompt), slug(prompt, width=len(prompt) + 8)
    if short == whole and prompt.isascii():
        return short
    return f"{short}-{hashlib.sha256(prompt.encode('utf-8', 'replace')).hexdigest()[:6]}"


def slug(text: str, width: int = 40) -> str:
    """Lower-case ASCII letters and digits joined by single hyphens, for file names."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:width].strip("-") or "picture"


def comparison_sheet(cards: Sequence[Card], heading: str = "") -> Image.Image:
    """One picture of all cards in a row, each with its title and figures.

    Args:
        cards: at least one, with pictures of one size.
        heading: a line above them, such as the prompt.

    Raises:
        ValueError: if there is no card.
    """
    if not cards:
        raise ValueError("cards is empty; a sheet needs at least one")
    side = cards[0].image.width
    side *= max(1, round(256 / side))  # small pictures are enlarged, and room made for the text
    texts = [card_lines(card) for card in cards]
    font = ImageFont.load_default(14)
    width = max(side, *(int(font.getlength(line)) for lines in texts for line in lines))
    top = _MARGIN + (2 * _LINE if heading else 0)
    height = top + side + _MARGIN + _LINE * max(map(len, texts)) + _MARGIN
    size = (_MARGIN + len(cards) * (width + _MARGIN), height)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN, _MARGIN), heading, "black", ImageFont.load_default(18))
    for index, (card, lines) in enumerate(zip(cards, texts, strict=True)):
        left = _MARGIN + index * (width + _MARGIN)
        sheet.paste(card.image.resize((side, side), Image.Resampling.LANCZOS), (left, top))
        for row, line in enumerate(lines):
            draw.text((left, top + side + _MARGIN + row * _LINE), line, "black", font)
    return sheet


def card_lines(card: Card) -> list[str]:
    """A card's caption: title, cost, guidance, distance and grid."""
    scale = card.column.settings.guidance_scale
    lines = [
        card.column.title,
        f"{card.nfe} network calls, {card.seconds:.2f} s",
        f"guidance {scale:g}" if scale and scale > 1 else "no guidance",
        "reference" if card.distance is None else f"distance to reference {card.distance:.3f}",
        short_grid(card.sigmas),
    ]
    if card.grid_mismatch:
        lines.append("GRID MISMATCH: not the student's edges")
    return lines


def short_grid(sigmas: Sequence[float], most: int = 6) -> str:
    """A grid on one line, its middle left out when it is long."""
    if len(sigmas) <= most:
        return format_grid(sigmas)
    head, tail = format_grid(sigmas[:3])[:-1], format_grid(sigmas[-2:])[1:]
    return f"{head}, ..., {tail}"
