"""`flowsteer bench`: timings and ratios on this machine."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional

from flowsteer.cli.inputs import DEFAULT_STUDENT, WholeNumber, check_output_file
from flowsteer.files import write_text
from flowsteer.limits import Within, check_fields


@dataclass(frozen=True)
class Bench:
    """Time the student against the teacher, every way of teaching, the imports, the app."""

    bench: Positional[Literal["all", "generate", "train", "import", "start", "app"]] = "all"
    """Which benchmark."""
    student: str = DEFAULT_STUDENT
    """Bundled student or student folder."""
    repeats: Annotated[WholeNumber, Within(1, 1000)] = 7
    """Runs of each, in turn, of slow ones fewer; the median counts."""
    json: Path | None = None
    """Also write the figures to this file."""

    def run(self) -> None:
        """Print one table a benchmark."""
        check_fields(self)
        check_output_file(self.json)
        from flowsteer.bench import BENCHES, run_benches

        names = BENCHES if self.bench == "all" else (self.bench,)
        reports = []
        for report in run_benches(names, self.student, self.repeats):
            print(report.table(), end="\n\n", flush=True)
            reports.append(report.to_json())
        if self.json is not None:
            write_json(self.json, reports)


def write_json(path: Path, value: object) -> None:
    """Write JSON in one move: whole or not at all."""
    write_text(path, json.dumps(value, indent=2) + "\n")
