"""Comparisons as files: what the app's ZIP says, so that the command draws the same pictures."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from PIL import Image

from flowsteer.comparing import Card, Column, columns_for
from flowsteer.pictures import read_record, versions
from flowsteer.settings import Settings
from flowsteer.untrusted import (
    MOST_ARCHIVE_BYTES,
    Archive,
    decoding,
    name_of,
    open_archive,
    open_regular,
    parse_json,
    read_json,
)
from flowsteer.validation import MAX_PROMPT_CHARACTERS, check_prompt, check_seed, shorten

SETTINGS_FILE = "settings.json"
MOST_SETTINGS_BYTES = 5_000_000
MOST_PNG_BYTES = 50_000_000
MOST_PNG_PIXELS = 2**24  # 4096 x 4096
MOST_COLUMNS = 64
MOST_SEEDS = 64
WHAT = "a comparison"


@dataclass(frozen=True)
class ComparisonFile:
    """A comparison that can be drawn again.

    Args:
        model: name, folder or hub id.
        prompt: what to draw.
        seeds: of the noises.
        columns: what to draw it with, settings complete.
        pictures: the pictures in the ZIP by file name; empty for a JSON file alone.
        dtype: the networks' precision, where the file says it.
    """

    model: str
    prompt: str
    seeds: tuple[int, ...]
    columns: tuple[Column, ...]
    pictures: dict[str, Image.Image] = field(default_factory=dict, repr=False)
    dtype: str | None = None


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
        "columns": [_column_record(column) for column in columns],
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
    with open_regular(path, WHAT, MOST_ARCHIVE_BYTES) as file:
        packed = zipfile.is_zipfile(file)
    try:
        if not packed:
            return _comparison(read_json(path, WHAT, MOST_SETTINGS_BYTES))
        with open_archive(path, WHAT) as archive:
            text = archive.read(SETTINGS_FILE, MOST_SETTINGS_BYTES).decode("utf-8-sig")
            saved = _comparison(parse_json(text, f"{SETTINGS_FILE} in {archive.where}"))
            return replace(saved, pictures=_pictures(archive, saved))
    except ValueError as error:
        where = name_of(path)
        reason = str(error).removeprefix(where).lstrip()
        raise ValueError(
            f"{where} is no comparison that can be drawn again: {reason}; give the app's ZIP or its"
            f" {SETTINGS_FILE}"
        ) from error


def is_png(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins as a PNG does."""
    with open_regular(path, WHAT, MOST_ARCHIVE_BYTES) as file:
        return file.read(8) == b"\x89PNG\r\n\x1a\n"


def read_sheet(path: str | os.PathLike[str]) -> ComparisonFile:
    """What a PNG of ours says: a comparison's columns, or those beside a picture's student.

    Raises:
        ValueError: if the file carries no record, or a value in it is wrong.
    """
    record = read_record(path)
    rows, student, dtype = record.get("columns"), record.get("student"), record.get("dtype")
    try:
        if not isinstance(student, str | None) or not isinstance(dtype, str | None):
            raise ValueError("student and dtype must be text")
        if rows is None:
            rows = [_column_record(column) for column in columns_for(student)]
        elif isinstance(rows, list):
            measured = {"sigmas", "nfe", "distance", "grid_mismatch"}
            rows = [
                {name: value for name, value in row.items() if name not in measured}
                if isinstance(row, dict)
                else row
                for row in rows
            ]
        saved = _comparison({**record, "seeds": [record.get("seed")], "columns": rows})
        return replace(saved, dtype=dtype)
    except ValueError as error:
        raise ValueError(f"{name_of(path)} cannot be drawn again: {error}") from error


def _column_record(column: Column) -> dict[str, Any]:
    return {"key": column.key, "title": column.title, **asdict(column.settings)}


def _comparison(record: Any) -> ComparisonFile:
    """What `settings.json` says, without pictures."""
    if not isinstance(record, dict):
        raise ValueError("it holds no JSON object")
    if lacking := sorted({"model", "prompt", "seeds", "columns"} - record.keys()):
        raise ValueError(f"it lacks {', '.join(lacking)}")
    model, seeds, columns = record["model"], record["seeds"], record["columns"]
    if not isinstance(model, str) or not 0 < len(model) <= MAX_PROMPT_CHARACTERS:
        raise ValueError(f"model = {shorten(model)} must be a name or a folder")
    for name, values, most in (
        ("seeds", seeds, MOST_SEEDS),
        ("columns", columns, MOST_COLUMNS),
    ):
        if not isinstance(values, list) or not 1 <= len(values) <= most:
            raise ValueError(f"{name} = {shorten(values)} must be a list of 1 to {most}")
    return ComparisonFile(
        model,
        check_prompt(record["prompt"]),
        tuple(check_seed(seed) for seed in seeds),
        tuple(_column(row) for row in columns),
    )


def _pictures(archive: Archive, saved: ComparisonFile) -> dict[str, Image.Image]:
    """The pictures that a comparison should have, of those that are there; others are left."""
    found = {}
    for column in saved.columns:
        for seed in saved.seeds:
            name = picture_file(column, seed)
            if name in archive and name not in found:
                file = io.BytesIO(archive.read(name, MOST_PNG_BYTES))
                with decoding(file, name, ("PNG",), most_pixels=MOST_PNG_PIXELS) as image:
                    found[name] = image.convert("RGB")
    return found


def _column(row: Any) -> Column:
    if not isinstance(row, dict) or not isinstance(row.get("student"), str | None):
        raise ValueError(f"column {shorten(row)} must be an object, its student text or null")
    for name in ("key", "title"):
        if not isinstance(row.get(name), str) or len(row[name]) > MAX_PROMPT_CHARACTERS:
            raise ValueError(f"column {name} = {shorten(row.get(name))} must be text")
    known = {item.name for item in fields(Settings)}
    if unknown := sorted(row.keys() - known - {"key", "title"}):
        raise ValueError(
            f"column {shorten(row.get('key'))} has unknown fields {', '.join(unknown)}; a newer"
            " flowsteer may have written it"
        )
    settings = Settings(**{name: value for name, value in row.items() if name in known}).validate()
    return Column(row["key"], row["title"], settings)
