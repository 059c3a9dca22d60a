"""Comparisons as files: what the app's ZIP says, so that the command draws the same pictures."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from PIL import Image

from flowsteer.comparing import Card, Column
from flowsteer.pictures import versions
from flowsteer.settings import Settings
from flowsteer.validation import check_prompt, check_seed, shorten

SETTINGS_FILE = "settings.json"
MOST_BYTES = 500_000_000  # of one file in a ZIP; more is no comparison


_NOT_OURS = (
    OSError,
    KeyError,
    TypeError,
    UnicodeDecodeError,
    json.JSONDecodeError,
    zipfile.BadZipFile,
)


@dataclass(frozen=True)
class ComparisonFile:
    """A comparison that can be drawn again.

    Args:
        model: name, folder or hub id.
        prompt: what to draw.
        seeds: of the noises.
        columns: what to draw it with, settings complete.
        pictures: the pictures in the ZIP by file name; empty for a JSON file alone.
    """

    model: str
    prompt: str
    seeds: tuple[int, ...]
    columns: tuple[Column, ...]
    pictures: dict[str, Image.Image] = field(default_factory=dict, repr=False)


def picture_file(column: Column, seed: int) -> str:
    """Name of a picture beside `settings.json`."""
    return f"{column.key}-seed{seed}.png"


def file_record(
    model: str,
    prompt: str,
    seeds: Sequence[int],
    columns: Sequence[Column],
    cards: Sequence[Card],
) -> dict[str, Any]:
    """What `settings.json` says: all that the pictures depend on, and what they cost."""
    return {
        "model": model,
        "prompt": prompt,
        "seeds": list(seeds),
        "columns": [{"key": c.key, "title": c.title, **asdict(c.settings)} for c in columns],
        "pictures": [
            {
                "file": picture_file(card.column, card.seed),
                "column": card.column.key,
                "seed": card.seed,
                "nfe": card.nfe,
                "seconds": card.seconds,
                "sigmas": list(card.sigmas),
                "distance": card.distance,
            }
            for card in cards
        ],
        "versions": versions(),
    }


def read_comparison(path: str | os.PathLike[str]) -> ComparisonFile:
    """Read `settings.json`, alone or in the app's ZIP.

    Raises:
        ValueError: if the file is not readable as either, or a value in it is wrong.
    """
    name = os.fspath(path)
    try:
        if zipfile.is_zipfile(name):
            text, pictures = _read_zip(name)
        else:
            text, pictures = Path(name).read_text(encoding="utf-8"), {}
        record = json.loads(text)
        columns = tuple(_column(row) for row in record["columns"])
        seeds = tuple(check_seed(seed) for seed in record["seeds"])
        model, prompt = record["model"], check_prompt(record["prompt"])
    except _NOT_OURS as error:
        raise ValueError(
            f"{name!r} is no comparison ({type(error).__name__}: {error}); give the app's ZIP or"
            f" its {SETTINGS_FILE}"
        ) from error
    if not isinstance(model, str) or not columns or not seeds:
        raise ValueError(f"{name!r} names no model, no column or no seed; download it again")
    return ComparisonFile(model, prompt, seeds, columns, pictures)


def _read_zip(name: str) -> tuple[str, dict[str, Image.Image]]:
    pictures = {}
    with zipfile.ZipFile(name) as archive:
        for entry in archive.infolist():
            if entry.file_size > MOST_BYTES:
                raise ValueError(f"{entry.filename!r} in {name!r} is too large for a picture")
            if entry.filename.endswith(".png"):
                with Image.open(io.BytesIO(archive.read(entry))) as image:
                    pictures[entry.filename] = image.convert("RGB")
        return archive.read(SETTINGS_FILE).decode("utf-8"), pictures


def _column(row: dict[str, Any]) -> Column:
    if not isinstance(row, dict) or not isinstance(row.get("student"), str | None):
        raise TypeError(f"{shorten(row)} is no column")
    known = {item.name for item in fields(Settings)}
    if unknown := sorted(row.keys() - known - {"key", "title"}):
        raise ValueError(
            f"column {shorten(row.get('key'))} has unknown fields {', '.join(unknown)}; a newer"
            " flowsteer may have written it"
        )
    settings = Settings(**{name: value for name, value in row.items() if name in known}).validate()
    return Column(str(row["key"]), str(row["title"]), settings)
