"""What a cell does when it needs no training: variants, schedulers, solvers."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

from torch import Tensor

from flowsteer.emoji.prompts import load_prompts
from flowsteer.evaluation.solvers import SolverRow, solver_table
from flowsteer.evaluation.study import Result, Variant, undistilled_variants
from flowsteer.loading import pipeline_info, with_student
from flowsteer.reproduce.workbench import Workbench


@dataclass(frozen=True)
class Deadline:
    """When to stop; None never."""

    at: float | None = None
    """Of `time.monotonic`."""

    @classmethod
    def after(cls, seconds: float | None) -> Deadline:
        """So many seconds from now."""
        return cls(None if seconds is None else time.monotonic() + seconds)

    def leaves(self, seconds: float) -> bool:
        """Whether something that takes `seconds` would still end in time."""
        return self.at is None or time.monotonic() + seconds <= self.at


@dataclass(frozen=True)
class Place:
    """Where a cell finds and leaves its files."""

    run: Path
    """Its own unfinished run."""
    students: Path
    """Folders of the students that training cells have left, by cell."""
    deadline: Deadline = field(default_factory=Deadline)


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a cell came to."""

    results: dict[str, Any]
    """As JSON can hold it."""
    latents: Tensor | None = None
    """(n, 16, 16, 16) from the first prompts' noises, for the picture sheet."""


class Job(Protocol):
    """A frozen dataclass whose fields say all that its results depend on."""

    @property
    def kind(self) -> str:
        """Its name in the JSON."""
        ...

    def run(self, bench: Workbench, place: Place) -> Outcome | None:
        """Do it; None if the time ran out and there is something left for the next call."""
        ...


@dataclass(frozen=True)
class Variants:
    """Table 0: the teacher, and every way to run it in few steps without teaching anyone."""

    kind: ClassVar[str] = "variants"
    model: str
    num_prompts: int
    steps: int = 4

    def run(self, bench: Workbench, place: Place) -> Outcome:
        """All rows; the sheet shows the teacher's own 28 steps."""
        ground = bench.test
        rows = [
            bench.evaluate(bench.pipe, variant, ground)[0]
            for variant in undistilled_variants(self.steps)
        ]
        return Outcome(
            {
                "teacher": ground.teacher.to_json(),
                "rows": [row.to_json() for row in rows],
            },
            ground.reference.latents,
        )


@dataclass(frozen=True)
class SchedulerSweep:
    """Table 2: one network on both grids, at several numbers of steps."""

    kind: ClassVar[str] = "scheduler"
    model: str
    num_prompts: int
    step_counts: tuple[int, ...]
    student: str | None = None
    """The training cell whose student is sampled, unguided; None samples the guided teacher."""

    def run(self, bench: Workbench, place: Place) -> Outcome:
        """A row for each grid and number; `fits` says whether all of a student's edges are on it.

        Raises:
            ValueError: if the student is not there.
        """
        pipe, scale, info = bench.pipe, pipeline_info(bench.pipe).guidance_scale, None
        if self.student is not None:
            pipe = with_student(bench.pipe, place.students / self.student, True)
            taught = pipeline_info(pipe).student
            info, scale = taught.info if taught else None, 1.0
        rows = []
        for result in _sweep(bench, pipe, self.step_counts, scale):
            grid = result.variant.grid(pipe.scheduler.shift)
            fits = info is None or info.fits(grid.tolist())
            rows.append(result.to_json() | {"fits": fits})
        return Outcome({"teacher": bench.test.teacher.to_json(), "rows": rows})


def _sweep(
    bench: Workbench, pipe: Any, step_counts: tuple[int, ...], scale: float
) -> Iterator[Result]:
    for scheduler in ("stock", "rectified"):
        for steps in step_counts:
            variant = Variant(f"{scheduler}, {steps} steps", steps, scale, scheduler)
            yield bench.evaluate(pipe, variant, bench.test)[0]


@dataclass(frozen=True)
class SolverErrors:
    """Table 5: error of the guided rollout at every window edge, on dev prompts."""

    kind: ClassVar[str] = "solvers"
    model: str
    num_prompts: int
    substeps: Mapping[str, tuple[int, ...]]
    reference_substeps: int
    num_windows: int = 4

    def run(self, bench: Workbench, place: Place) -> Outcome:
        """A row for each solver and number of substeps."""
        rows = solver_table(
            bench.pipe,
            load_prompts("dev", self.num_prompts),
            self.substeps,
            self.num_windows,
            reference_substeps=self.reference_substeps,
        )
        return Outcome({"rows": [_to_json(row) for row in rows]})


def _to_json(row: SolverRow) -> dict:
    errors = [[float(f"{error:.4g}") for error in errors] for errors in row.errors]
    return row.to_json() | {"errors": errors}


def config_of(job: Job) -> dict[str, Any]:
    """A job's kind and fields, as its cell's JSON keeps them."""
    return {"kind": job.kind} | asdict(job)  # type: ignore[call-overload]
