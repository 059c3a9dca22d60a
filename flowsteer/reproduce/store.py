"""The folder of a reproduction: one JSON a cell, so that it can be stopped, moved and merged."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from flowsteer.files import write_text
from flowsteer.untrusted import read_json

MOST_CELL_BYTES = 50_000_000  # per-prompt lists of 1,200 prompts take 0.15 MB
Record = dict[str, Any]
"""What a cell's JSON holds: name, table, label, seed, config, results, made_on, seconds, …"""


class Store:
    """Cells, students and unfinished runs of one reproduction.

        cells/NAME.json, NAME.png   results, and pictures from the first prompts' noises
        students/NAME/              what a training cell has taught
        runs/NAME/                  checkpoints of a training cell that is not done yet

    To merge two reproductions, copy `cells` and `students` of one into the other. A finished report
    can do without the PNGs: it keeps the sheet that was made of them.

    Args:
        folder: made when something is written.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.cells = self.folder / "cells"
        self.students = self.folder / "students"

    def run(self, name: str) -> Path:
        """Folder of a training cell's unfinished run."""
        return self.folder / "runs" / name

    def picture(self, name: str) -> Path:
        """A cell's strip of pictures."""
        return self.cells / f"{name}.png"

    def has(self, name: str) -> bool:
        """Whether a cell is done."""
        return self._path(name).is_file()

    def read(self, name: str) -> Record:
        """A cell's record.

        Raises:
            ValueError: if it is not there, or its file is no cell's.
        """
        path = self._path(name)
        try:
            record = read_json(path, "a cell of a reproduction", MOST_CELL_BYTES)
        except ValueError as error:
            raise ValueError(f"{path} is not readable as a cell: {error}; delete it") from error
        whole = isinstance(record, dict) and {"name", "table", "config", "results"} <= record.keys()
        if not whole or record["name"] != name:
            raise ValueError(f"{path} is no record of the cell {name!r}; delete it")
        return record

    def read_all(self) -> dict[str, Record]:
        """Every cell that is done, by name."""
        names = sorted(path.stem for path in self.cells.glob("*.json"))
        return {name: self.read(name) for name in names}

    def write(self, record: Record, picture: Image.Image | None = None) -> None:
        """Write a cell at once: its picture first, its JSON aside and renamed."""
        self.cells.mkdir(parents=True, exist_ok=True)
        if picture is not None:
            picture.save(self.picture(record["name"]))
        text = json.dumps(record, separators=(",", ":"))  # per-prompt lists: a tenth is spaces
        write_text(self._path(record["name"]), text + "\n")

    def keep_student(self, name: str) -> None:
        """Move the student of a run that is done to `students`, and drop the run's checkpoints."""
        target, source = self.students / name, self.run(name) / "student"
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.rmtree(target, ignore_errors=True)
            os.replace(source, target)

    def drop_run(self, name: str) -> None:
        """Remove a run's checkpoints, once its cell is written."""
        shutil.rmtree(self.run(name), ignore_errors=True)

    def check(self, name: str, config: Mapping[str, Any]) -> None:
        """Make sure that a cell on disk is what a new one would be.

        Raises:
            ValueError: naming the first field that differs, both values and the ways out.
        """
        old, new = self.read(name)["config"], json.loads(json.dumps(config))
        if found := difference(old, new):
            field, there, wanted = found
            raise ValueError(
                f"{self._path(name)} was made with {field} = {there}, and {wanted} is wanted:"
                " choose another --output_dir, or delete the file to make it again"
            )

    def _path(self, name: str) -> Path:
        return self.cells / f"{name}.json"


ABSENT = "(absent)"


def difference(old: Any, new: Any, field: str = "config") -> tuple[str, Any, Any] | None:
    """The first field in which two JSON values differ, and both values; None if they are equal."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            inner = key if field == "config" else f"{field}.{key}"
            # a field that one of them lacks is no field that is None there
            if found := difference(old.get(key, ABSENT), new.get(key, ABSENT), inner):
                return found
        return None
    return None if old == new else (field, old, new)
