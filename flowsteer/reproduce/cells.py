"""The cells of a reproduction: each one run or evaluation, with a name, and a file of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flowsteer.reproduce.jobs import Job, SchedulerSweep, SolverErrors, Variants
from flowsteer.reproduce.mismatch import Mismatch
from flowsteer.reproduce.presets import NUM_WINDOWS, ROWS, TABLES, Preset, Row
from flowsteer.reproduce.teaching import Training
from flowsteer.training.distillation_config import DistillationConfig

STUDENTS = ("perflow", "all")
"""Rows whose students the scheduler's table samples: from stock edges and from rectified ones."""


@dataclass(frozen=True)
class Cell:
    """One unit of work, done or not."""

    name: str
    """Also its file's."""
    table: str
    """One of `TABLES`."""
    label: str
    job: Job
    seed: int | None = None
    """Of its training; None if it trains nothing."""
    row: str | None = None
    """The row of `ROWS` that it trains, or a variant of it."""
    needs: str | None = None
    """The cell whose student it samples."""


def plan(
    preset: Preset,
    tables: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    rates: Mapping[str, float] | None = None,
) -> list[Cell]:
    """All cells of some tables, in the order in which they are best done.

    Args:
        preset: sizes.
        tables: of `TABLES`; None means all.
        seeds: training seeds of the ablation; None means the preset's.
        rates: row -> the learning rate that its tuning chose; others take the preset's.

    Raises:
        ValueError: if there is no such table.
    """
    for table in tables or ():
        if table not in TABLES:
            raise ValueError(f"table {table!r} is unknown; use some of {', '.join(TABLES)}")
    rates = rates or {}
    seeds = preset.seeds if seeds is None else tuple(seeds)
    cells = [
        *_teacher_cells(preset),
        *_tuning_cells(preset),
        *(_ablation_cell(preset, name, seed, rates) for seed in seeds for name in ROWS),
        *_student_sweeps(preset),
        *_beyond_cells(preset, rates),
        _solver_cell(preset),
    ]
    return [cell for cell in cells if tables is None or cell.table in tables]


def ablation_name(row: str, seed: int) -> str:
    """Name of an ablation cell."""
    return f"3-{row}-seed{seed}"


def tuning_name(row: str, rate: float) -> str:
    """Name of a tuning cell."""
    return f"tuning-{row}-lr{rate:g}"


def _teacher_cells(preset: Preset) -> Iterator[Cell]:
    model, count = preset.model, preset.num_prompts
    yield Cell("0-variants", "0", "undistilled teacher", Variants(model, count, NUM_WINDOWS))
    yield Cell("1-mismatch", "1", "teacher", Mismatch(model, count, NUM_WINDOWS))
    sweep = SchedulerSweep(model, count, preset.step_counts)
    yield Cell("2-scheduler-teacher", "2", "teacher", sweep)


def _tuning_cells(preset: Preset) -> Iterator[Cell]:
    """The same learning rates for every row, in shorter runs of seed 0."""
    for name, row in ROWS.items():
        for rate in preset.learning_rates:
            flags = flags_of(preset, row) | {"learning_rate": rate, "seed": 0}
            flags["max_train_steps"] = preset.tuning_steps
            job = Training(
                preset.model,
                row.label,
                flags,
                split="dev",
                num_prompts=preset.dev_prompts,
                checkpoints=1,
                sampling=((NUM_WINDOWS, row.grid),),
            )
            yield Cell(tuning_name(name, rate), "tuning", f"{row.label}, {rate:g}", job, 0, name)


def _ablation_cell(preset: Preset, name: str, seed: int, rates: Mapping[str, float]) -> Cell:
    row = ROWS[name]
    flags = flags_of(preset, row) | {"seed": seed}
    if name in rates:
        flags["learning_rate"] = rates[name]
    return Cell(
        ablation_name(name, seed),
        "3",
        f"{row.label}, seed {seed}",
        _reported(preset, row.label, flags, row.grid),
        seed,
        name,
    )


def _reported(preset: Preset, label: str, flags: dict[str, Any], grid: str) -> Training:
    """A run on the test prompts; ReFlow's single window allows a single step too."""
    ways = [(NUM_WINDOWS, grid)]
    if flags["method"] == "reflow":
        ways.append((1, grid))
    return Training(
        preset.model, label, flags, "test", preset.num_prompts, preset.checkpoints, tuple(ways)
    )


def _student_sweeps(preset: Preset) -> Iterator[Cell]:
    """The scheduler's table for two students of the preset's first seed."""
    for name in STUDENTS:
        needs = ablation_name(name, preset.seeds[0])
        job = SchedulerSweep(preset.model, preset.num_prompts, preset.step_counts, needs)
        label = f"student {ROWS[name].label}, seed {preset.seeds[0]}"
        yield Cell(f"2-scheduler-{name}", "2", label, job, needs=needs)


def _beyond_cells(preset: Preset, rates: Mapping[str, float]) -> Iterator[Cell]:
    """One flag changed from a row, first seed; the row's own value is the ablation's cell."""
    seed = preset.seeds[0]
    for variation in preset.variations:
        name, flag, row = variation.row, variation.flag, ROWS[variation.row]
        base = flags_of(preset, row) | {"seed": seed}
        if name in rates:
            base["learning_rate"] = rates[name]
        for value in variation.values:
            if value != base.get(flag, getattr(DistillationConfig, flag)):
                label = f"{flag} = {value}"
                job = _reported(preset, label, base | {flag: value}, row.grid)
                yield Cell(f"4-{flag}-{value}", "4", label, job, seed, name)


def _solver_cell(preset: Preset) -> Cell:
    substeps = {solver: tuple(counts) for solver, counts in preset.solver_substeps.items()}
    job = SolverErrors(
        preset.model, preset.solver_prompts, substeps, preset.reference_substeps, NUM_WINDOWS
    )
    return Cell("5-solvers", "5", "solvers", job)


def flags_of(preset: Preset, row: Row) -> dict[str, Any]:
    """Flags of a row's run in a preset, seed aside.

    ReFlow's one window gets as many teacher steps as all windows of the others together.
    """
    flags = dict(preset.flags) | dict(row.flags)
    if row.flags["method"] == "reflow":
        flags["substeps"] = NUM_WINDOWS * flags["substeps"]
    return flags
