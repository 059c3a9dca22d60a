"""Where a window starts: the teacher's own path (OTA), real data, noise, or the student's own path.

They differ in nothing but how x_hi comes about. From there the teacher solves the window, and the
student is taught the mean velocity.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from flowsteer.flow import (
    TimeWindows,
    VelocityField,
    chord_point,
    euler_step,
    find_solver,
    interpolate,
    mean_velocity,
    refine_grid,
)


@dataclass(frozen=True, eq=False)
class Batch:
    """One batch with all its randomness, so that what follows is a pure function of it."""

    eps: Tensor  # (b, *d): noise
    depths: Tensor  # (K, b): where in each window the student is asked, 0 at t_hi, 1 at t_lo
    cond: Any = None  # what the student is told
    x_0: Tensor | None = None  # (b, *d): real data; only PeRFlow needs it
    on_policy: Tensor | None = None  # (b,) bool: whose windows start from the student's own states
    edge: Tensor | None = None  # (b,) int64 in [0, K): at whose end (t_lo) the critic looks


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
    """How the teacher crosses a window: `substeps` steps, even in unshifted time.

    Raises:
        ValueError: if there is less than one substep, or no such solver.
    """

    substeps: int = 7
    shift: float = 1.0
    solver: str = "euler"
    """A name in `flow.SOLVERS`; a multistep begins each window anew."""

    def __post_init__(self) -> None:
        if self.substeps < 1:
            raise ValueError(f"substeps = {self.substeps} must be at least 1")
        find_solver(self.solver)

    def __call__(
        self, teacher: VelocityField, x_hi: Tensor, t_hi: float, t_lo: float, cond: Any
    ) -> Tensor:
        """ODESolve(teacher, x_hi, t_hi, t_lo): the state at t_lo."""
        times = refine_grid((t_hi, t_lo), self.substeps, self.shift)
        x = x_hi
        for state in find_solver(self.solver)(teacher, x_hi, times, cond):
            x = state
        return x


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


def pair_starts(
    teacher: VelocityField, batch: Batch, windows: TimeWindows, solve: Solve
) -> Iterator[Segment]:
    """ReFlow (Liu et al. 2023, arXiv 2209.03003, algorithm 1): pairs of noise and its endpoint.

    The one window [1, 0] holds the whole path, so its chord joins eps to the teacher's image. With
    a student as the teacher this is the second round, and so on. Needs no data.

    Raises:
        ValueError: if there is more than one window.
    """
    if windows.num_windows != 1:
        raise ValueError(
            f"windows have edges {windows.edges}: pairs of noise and image have the one window "
            "(1.0, 0.0); give num_windows = 1"
        )
    yield from authentic_starts(teacher, batch, windows, solve)


def own_states(
    student: VelocityField, eps: Tensor, windows: TimeWindows, cond: Any = None
) -> list[Tensor]:
    """Where the student's own Euler steps from the noise enter each window: K times (b, *d).

    No gradient; K - 1 calls.
    """
    states = [eps]
    with torch.no_grad():
        for k in range(windows.num_windows - 1):
            states.append(euler_step(student, states[-1], *windows.bounds(k), cond))
    return states


def on_policy_starts(student: VelocityField) -> Start:
    """Online Trajectory Alignment from the student's own path, for the samples that are marked.

    At inference a window starts where the student's calls arrive, which is near the teacher's path
    but not on it; the teacher then solves from there. Samples that `batch.on_policy` leaves
    unmarked stay on the teacher's own path. One teacher's solve and one student's call a window.

    Args:
        student: the field that is taught; no gradient flows through its calls here.

    Returns:
        A start. It raises ValueError when its batch has no bool for each sample.
    """

    def start(
        teacher: VelocityField, batch: Batch, windows: TimeWindows, solve: Solve
    ) -> Iterator[Segment]:
        marks, count = batch.on_policy, len(batch.eps)
        if marks is None or marks.dtype != torch.bool or marks.shape != (count,):
            raise ValueError(
                f"on_policy = {marks} marks no samples: give the batch a bool for each of {count}"
            )
        on_policy = marks.reshape(-1, *[1] * (batch.eps.ndim - 1))
        x = batch.eps
        for k in range(windows.num_windows):
            t_hi, t_lo = windows.bounds(k)
            with torch.no_grad():
                x_lo = solve(teacher, x, t_hi, t_lo, batch.cond)
            yield Segment(x, x_lo, t_hi, t_lo)
            if t_lo > 0:
                with torch.no_grad():
                    own = euler_step(student, x, t_hi, t_lo, batch.cond)
                x = torch.where(on_policy, own, x_lo)

    return start
