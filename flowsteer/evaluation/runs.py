"""The shipped log of the run that taught a bundled student."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flowsteer.emoji

RESULTS = Path(flowsteer.emoji.__file__).parent / "results"


@dataclass(frozen=True)
class ShippedRun:
    """A log: where it ran, a row for each report, and whatever else its file tells."""

    device: str
    rows: list[dict[str, float]]
    rest: dict[str, Any]


def load_run(student: str = "flowsteer", folder: Path = RESULTS) -> ShippedRun | None:
    """The log of a bundled student's training, or None if none is shipped.

    The file's `columns` name what its `rows` hold, so that it may have more of both; None stands
    for a value that a row lacks.

    Raises:
        ValueError: if the file is there and has no rows with a step.
    """
    path = folder / f"{student}_training.json"
    if not path.is_file():
        return None
    record = json.loads(path.read_text(encoding="utf-8"))
    columns, values = record.get("columns", ()), record.get("rows", ())
    if "step" not in columns or not values:
        raise ValueError(f"{path} has no rows with a step; ship the log of the run again")
    rows = [
        {name: float(v) for name, v in zip(columns, row, strict=True) if v is not None}
        for row in values
    ]
    rest = {name: value for name, value in record.items() if name not in ("columns", "rows")}
    return ShippedRun(str(rest.pop("device", "an unnamed device")), rows, rest)
