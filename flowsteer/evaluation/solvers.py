"""Which solver the teacher's rollout should use: error at every window edge for each call.

The rollout is most of a distillation's bill, and its error is an error of the student's target.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from flowsteer.distill.starts import Batch, Solve, authentic_starts
from flowsteer.emoji.prompts import EvalPrompt
from flowsteer.evaluation.study import prepare
from flowsteer.flow import (
    CALLS_PER_STEP,
    TimeWindows,
    VelocityField,
    format_grid,
    guided,
    rectified_grid,
)
from flowsteer.loading import pipeline_info
from flowsteer.measure.bootstrap import Interval, mean_interval
from flowsteer.measure.distances import relative_l2
from flowsteer.models.sd3 import SD3Field

SUBSTEPS: Mapping[str, Sequence[int]] = MappingProxyType(
    {"euler": (2, 3, 5, 7, 10, 14), "heun": (1, 2, 3, 5), "multistep": (2, 3, 4, 5, 7)}
)
REFERENCE_SUBSTEPS = 50
"""Heun's steps a window that stand for the exact path."""


@dataclass(frozen=True)
class SolverRow:
    """What a solver with so many substeps costs and misses."""

    solver: str
    substeps: int
    """A window."""
    calls: int
    """Of the guided teacher, for a whole rollout."""
    edges: tuple[float, ...]
    """Times at which errors are taken: the ends of the K windows."""
    errors: tuple[tuple[float, ...], ...]
    """(K, n): relative L2 to the exact path's state, at every edge for every prompt."""

    @property
    def endpoint(self) -> Interval:
        """Mean error of final latents with its 95% interval."""
        return mean_interval(self.errors[-1])

    @property
    def edge_errors(self) -> tuple[float, ...]:
        """Mean error at every edge."""
        return tuple(sum(errors) / len(errors) for errors in self.errors)

    def to_json(self) -> dict[str, Any]:
        """Settings, errors prompt by prompt and the endpoint's interval."""
        return asdict(self) | {"endpoint": asdict(self.endpoint)}


def solver_table(
    pipe: Any,
    prompts: Sequence[EvalPrompt],
    substeps: Mapping[str, Sequence[int]] = SUBSTEPS,
    num_windows: int = 4,
    guidance_scale: float | None = None,
    reference_substeps: int = REFERENCE_SUBSTEPS,
) -> Iterator[SolverRow]:
    """Measure solvers on a pipeline's guided teacher, from each prompt's own noise.

    Args:
        pipe: its transformer is the teacher.
        prompts: all in one batch.
        substeps: a solver's name -> the substeps a window to try.
        num_windows: K windows of the rectified grid.
        guidance_scale: None takes the teacher's default.
        reference_substeps: Heun's steps a window that stand for the exact path.

    Yields:
        One row a choice.

    Raises:
        ValueError: if a solver is unknown or a number of substeps below 1.
    """
    setting = prepare(pipe, prompts)
    scale = pipeline_info(pipe).guidance_scale if guidance_scale is None else guidance_scale
    teacher = guided(SD3Field(pipe.transformer), scale, setting.empty)
    eps, shift = setting.noise.to(pipe.transformer.device), pipe.scheduler.shift
    windows = TimeWindows.from_grid(rectified_grid(num_windows, shift))
    steps = substeps, reference_substeps
    yield from measure_solvers(teacher, eps, setting.cond, windows, shift, *steps)


def measure_solvers(
    teacher: VelocityField,
    eps: Tensor,
    cond: Any,
    windows: TimeWindows,
    shift: float = 1.0,
    substeps: Mapping[str, Sequence[int]] = SUBSTEPS,
    reference_substeps: int = REFERENCE_SUBSTEPS,
) -> Iterator[SolverRow]:
    """Roll the teacher out as distillation does, and compare the windows' ends with a fine rollout.

    Args:
        teacher: the field, with its guidance.
        eps: noise (n, *d).
        cond: n conditions.
        windows: whose ends are compared.
        shift: substeps are even in time unshifted by it.
        substeps: a solver's name -> the substeps a window to try.
        reference_substeps: Heun's steps a window that stand for the exact path.

    Yields:
        One row a choice.

    Raises:
        ValueError: if a solver is unknown or a number of substeps below 1.
    """
    choices = [Solve(n, shift, solver) for solver, counts in substeps.items() for n in counts]
    exact = _ends(teacher, eps, cond, windows, Solve(reference_substeps, shift, "heun"))
    for solve in choices:
        ends = _ends(teacher, eps, cond, windows, solve)
        errors = [relative_l2(x, x_exact) for x, x_exact in zip(ends, exact, strict=True)]
        yield SolverRow(
            solver=solve.solver,
            substeps=solve.substeps,
            calls=windows.num_windows * solve.substeps * CALLS_PER_STEP[solve.solver],
            edges=windows.edges[1:],
            errors=tuple(tuple(error.tolist()) for error in errors),
        )


def calls_to_reach(
    rows: Sequence[SolverRow], solver: str, error: float, edge: int = -1
) -> float | None:
    """How many teacher calls a solver needs for a mean error, between rows by a power law.

    Args:
        rows: of any solvers.
        solver: whose calls are asked for.
        error: relative L2, above 0.
        edge: number of the window at whose end; the last by default.

    Returns:
        The calls of a rollout; None if the error lies outside of what the rows reached.
    """
    own = sorted((row.calls, row.edge_errors[edge]) for row in rows if row.solver == solver)
    for (calls, reached), (more_calls, next_reached) in pairwise(own):
        if reached >= error >= next_reached:
            if reached == next_reached:
                return float(calls)
            share = math.log(reached / error) / math.log(reached / next_reached)
            return calls * (more_calls / calls) ** share
    return None


def solver_markdown(rows: Sequence[SolverRow], nfe_per_call: int = 2) -> str:
    """A Markdown table, errors in percent.

    Args:
        rows: one or more, of the same windows.
        nfe_per_call: network calls of one teacher call; 2 with guidance.
    """
    head = ["solver", "substeps a window", "teacher calls", "NFE"]
    head += [f"error at {format_grid([t])[1:-1]}, %" for t in rows[0].edges]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        end = row.endpoint
        cells = [row.solver, str(row.substeps), str(row.calls), str(row.calls * nfe_per_call)]
        cells += [f"{100 * error:.2f}" for error in row.edge_errors]
        cells[-1] += f" [{100 * end.low:.2f}, {100 * end.high:.2f}]"
        lines.append(cells)
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


@torch.no_grad()
def _ends(
    teacher: VelocityField, eps: Tensor, cond: Any, windows: TimeWindows, solve: Solve
) -> list[Tensor]:
    """The state at the end of every window, K of (n, *d)."""
    batch = Batch(eps, eps.new_zeros(windows.num_windows, len(eps)), cond)
    return [segment.x_lo for segment in authentic_starts(teacher, batch, windows, solve)]
