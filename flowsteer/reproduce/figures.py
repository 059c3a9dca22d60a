"""The report's plots, from cells. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import cast

from matplotlib.figure import Figure

from flowsteer import plots
from flowsteer.measure.bootstrap import Interval
from flowsteer.reproduce.ablation import runs_of
from flowsteer.reproduce.rollout import CELL as SOLVER_CELL
from flowsteer.reproduce.rollout import solver_rows
from flowsteer.reproduce.scores import Runs
from flowsteer.reproduce.tables import (
    Records,
    best_undistilled,
    overall,
    scheduler_cells,
    teacher_scores,
)

CURVES = ("loss", "grad_norm", "cosine", "critic_accuracy", "critic_ranked")
"""Of the log, those that the training curves show where a run has them."""


def figures(records: Records) -> dict[str, Callable[[Records], Figure]]:
    """Every plot that the cells allow: its name -> what draws it."""
    makers: dict[str, Callable[[Records], Figure | None]] = {
        "mismatch": _mismatch,
        "scheduler": _scheduler,
        "ablation": _ablation,
        "time": _time,
        "curves": _curves,
        "solvers": _solvers,
    }
    possible = {name: make for name, make in makers.items() if make(records) is not None}
    return cast("dict[str, Callable[[Records], Figure]]", possible)


def write_plots(records: Records, folder: Path) -> dict[str, Path]:
    """Every plot that the cells allow, as SVG: its name -> file."""
    written = {}
    for name, draw in figures(records).items():
        folder.mkdir(parents=True, exist_ok=True)
        written[name] = plots.save_figure(draw(records), folder / f"{name}.svg")
    return written


def _mismatch(records: Records) -> Figure | None:
    if "1-mismatch" not in records:
        return None
    results = records["1-mismatch"]["results"]
    rows, kinds = results["rows"], ("authentic", "interpolated")
    return plots.mismatch_figure(
        [row["t_hi"] for row in rows],
        overall(results["authentic"]),
        [overall(row["interpolated"]) for row in rows],
        {kind: [row["latent_distance"][kind] for row in rows] for kind in kinds},
    )


def _scheduler(records: Records) -> Figure | None:
    networks: dict[str, dict[str, list[plots.Point]]] = {}
    for name in scheduler_cells(records):
        curves: dict[str, list[plots.Point]] = {}
        for row in records[name]["results"]["rows"]:
            point = (row["num_inference_steps"], overall(row))
            curves.setdefault(row["scheduler"], []).append(point)
        networks[records[name]["label"]] = curves
    return plots.scheduler_figure(networks) if networks else None


def _ablation(records: Records) -> Figure | None:
    runs = runs_of(records)
    if not runs:
        return None
    rows = {run.label: (run.at().emoji_eval, run.at().distance) for run in runs}
    lines = {"teacher, 28 steps": teacher_scores(records), "undistilled": best_undistilled(records)}
    known = {name: row.emoji_eval.mean for name, row in lines.items() if row is not None}
    return plots.ablation_figure(rows, known)


def _time(records: Records) -> Figure | None:
    rows = {run.label: _over_time(run) for run in runs_of(records)}
    return plots.time_figure(rows) if rows else None


def _over_time(run: Runs) -> list[tuple[float, Interval, Interval]]:
    scores = [(run.seconds_at(step), run.at(step)) for step in run.steps()]
    return [(seconds, row.emoji_eval, row.distance) for seconds, row in scores]


def _curves(records: Records) -> Figure | None:
    """The first seed of every row: what a loss looks like when all is well."""
    curves: dict[str, Mapping[str, Sequence[float]]] = {
        run.label: run.records[run.seeds[0]]["results"]["curve"] for run in runs_of(records)
    }
    names = [name for name in CURVES if any(name in curve for curve in curves.values())]
    return plots.curves_figure(curves, names) if curves else None


def _solvers(records: Records) -> Figure | None:
    if SOLVER_CELL not in records:
        return None
    curves: dict[str, list[tuple[float, float]]] = {}
    for row in solver_rows(records):
        curves.setdefault(row.solver, []).append((row.calls, row.edge_errors[-1]))
    return plots.solver_figure(curves)
