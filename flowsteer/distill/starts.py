"""Where a window starts: PeRFlow's interpolated points, or the teacher's own path (OTA).

The two differ in one line each, and in nothing else: how x_hi comes about. From there the teacher
solves the window, and the student is taught the mean velocity.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from flowsteer.flow import (
    Step,
    TimeWindows,
    VelocityField,
    chord_point,
    euler_step,
    interpolate,
    mean_velocity,
    refine_grid,
    rollout,
)


@dataclass(frozen=True, eq=False)
class Batch:
    """One batch with all its randomness, so that what follows is a pure function of it."""

    eps: Tensor  # (b, *d): noise
    depths: Tensor  # (K, b): where in each window the student is asked, 0 at t_hi, 1 at t_lo
    cond: Any = None  # what the student is told
    x_0: Tensor | None = None  # (b, *d): real data; only PeRFlow needs it


@dataclass(frozen=True, eq=False)
class Segment:
    """The teacher's passage through one window."""

    x_hi: Tensor  # (b, *d): where it entered
    x_lo: Tensor  # (b, *d): where it left
    t_hi: float
    t_lo: float

    @property
    def mean_velocity(self) -> Tensor:
        """v* = (x_lo - x_hi) / (t_lo - t_hi), the target (b, *d)."""
        return mean_velocity(self.x_hi, self.x_lo, self.t_hi, self.t_lo)

    def chord(self, t: Tensor) -> Tensor:
        """The states x_hi + (t - t_hi) v* at times t (b,) on the straight line: (b, *d)."""
        return chord_point(self.x_hi, self.mean_velocity, self.t_hi, t)


@dataclass(frozen=True)
class Solve:
    """How the teacher crosses a window: `substeps` steps, even in unshifted time."""

    substeps: int = 7
    shift: float = 1.0
    step: Step = euler_step

    def __post_init__(self) -> None:
        if self.substeps < 1:
            raise ValueError(f"substeps = {self.substeps} must be at least 1")

    def __call__(
        self, teacher: VelocityField, x_hi: Tensor, t_hi: float, t_lo: float, cond: Any
    ) -> Tensor:
        """ODESolve(teacher, x_hi, t_hi, t_lo): the state at t_lo."""
        times = refine_grid((t_hi, t_lo), self.substeps, self.shift)
        return rollout(teacher, x_hi, times, cond, self.step).end


class Start(Protocol):
    """Yields the segments of all windows, noisiest first."""

    def __call__(
        self, teacher: VelocityField, batch: Batch, windows: TimeWindows, solve: Solve
    ) -> Iterator[Segment]:
        """One `Segment` a window. `teacher` is the guided one."""
        ...


def authentic_starts(
    teacher: VelocityField, batch: Batch, windows: TimeWindows, solve: Solve
) -> Iterator[Segment]:
    """Online Trajectory Alignment (FlowSteer, section 3.2): x_hi = ODESolve(teacher, eps, 1, t_hi).

    One rollout from noise passes through all K windows, so that it costs as many teacher calls
    a segment as PeRFlow. Needs no data.
    """
    x = batch.eps
    for k in range(windows.num_windows):
        t_hi, t_lo = windows.bounds(k)
        with torch.no_grad():
            x_hi, x = x, solve(teacher, x, t_hi, t_lo, batch.cond)
        yield Segment(x_hi, x, t_hi, t_lo)


def interpolated_starts(
    teacher: VelocityField, batch: Batch, windows: TimeWindows, solve: Solve
) -> Iterator[Segment]:
    """PeRFlow (Yan et al. 2024, algorithm 1): x_hi = (1 - t_hi) x_0 + t_hi eps with real data x_0.

    Raises:
        ValueError: if the batch has no data.
    """
    if batch.x_0 is None:
        raise ValueError("interpolated starts need data: give the batch an x_0")
    for k in range(windows.num_windows):
        t_hi, t_lo = windows.bounds(k)
        x_hi = interpolate(batch.x_0, batch.eps, t_hi)
        with torch.no_grad():
            x_lo = solve(teacher, x_hi, t_hi, t_lo, batch.cond)
        yield Segment(x_hi, x_lo, t_hi, t_lo)
