"""The log of a run: one JSON line a report, in `output_dir/log.jsonl`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from flowsteer.files import write_text
from flowsteer.training.loop import StepReport
from flowsteer.training.run_folder import LOG_FILE


def read_log(output_dir: str | Path) -> list[dict[str, Any]]:
    """The rows of a run's log, oldest first; none if it has no log yet.

    A last line that a killed run left unfinished is passed over.

    Raises:
        ValueError: if a line before the last is no JSON.
    """
    file = Path(output_dir) / LOG_FILE
    if not file.is_file():
        return []
    rows = []
    lines = file.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number < len(lines):
                raise ValueError(f"{file}, line {number}: {error}; remove the line") from error
    return rows


class TrainingLog:
    """Appends reports; a resumed run first drops the rows that it is about to repeat."""

    def __init__(self, output_dir: str | Path):
        self.file = Path(output_dir) / LOG_FILE
        self._started = False

    def add(self, report: StepReport) -> None:
        """Write one row. The file appears with the first.

        Raises:
            OSError: naming the file, if it cannot be written.
        """
        try:
            if not self._started:
                self._started = True
                # later rows are of steps that a resumed run takes anew
                rows = [row for row in read_log(self.file.parent) if row["step"] <= since(report)]
                write_text(self.file, "".join(json.dumps(row) + "\n" for row in rows))
            with self.file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(to_row(report)) + "\n")
        except OSError as error:
            raise OSError(
                f"{self.file} could not be written ({error}); make room, and go on with"
                " --resume_from_checkpoint latest"
            ) from error


def since(report: StepReport) -> int:
    """The step that a report's means begin after."""
    return report.step - 1 if report.since is None else report.since


def to_row(report: StepReport) -> dict[str, Any]:
    """A report's numbers, to six digits."""
    values = {
        "loss": report.loss,
        "grad_norm": report.grad_norm,
        "learning_rate": report.learning_rate,
        "samples_per_second": report.samples_per_second,
        **report.metrics,
    }
    return {"step": report.step} | {name: float(f"{v:.6g}") for name, v in values.items()}
