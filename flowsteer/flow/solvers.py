"""Solvers of dx/dt = v(x, t), from noise at t = 1 down to data at t = 0.

A step is a pure function from t_hi to t_lo; a solver runs through a grid of times, and may use what
it saw on the way. States are kept in float32 (float64 if the first one is), whatever precision the
field computes in: rounding would add up over a rollout.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, Protocol

import torch
from torch import Tensor

from flowsteer.flow.fields import VelocityField
from flowsteer.flow.path import Time, expand_time, time_like

Step = Callable[[VelocityField, Tensor, Time, Time, Any], Tensor]
"""(field, x at t_hi, t_hi, t_lo, cond) -> x at t_lo."""


def euler_step(field: VelocityField, x: Tensor, t_hi: Time, t_lo: Time, cond: Any = None) -> Tensor:
    """First order: x + (t_lo - t_hi) * v(x, t_hi). One call.

    Args:
        field: the velocity.
        x: state at t_hi, shape (b, *d).
        t_hi: time to leave, a scalar or shape (b,).
        t_lo: time to reach, a scalar or shape (b,).
        cond: condition, handed to the field.

    Returns:
        State at t_lo, shape (b, *d), float32 or float64.
    """
    x = _at_least_float32(x)
    dt = expand_time(t_lo, x) - expand_time(t_hi, x)
    return x + dt * _evaluate(field, x, t_hi, cond)


def heun_step(field: VelocityField, x: Tensor, t_hi: Time, t_lo: Time, cond: Any = None) -> Tensor:
    """Second order: a trial Euler step, then the mean of the velocities at both ends. Two calls.

    Arguments and result as in `euler_step`.
    """
    x = _at_least_float32(x)
    dt = expand_time(t_lo, x) - expand_time(t_hi, x)
    v_hi = _evaluate(field, x, t_hi, cond)
    v_lo = _evaluate(field, x + dt * v_hi, t_lo, cond)
    return x + dt * (v_hi + v_lo) / 2


@dataclass(frozen=True, eq=False)
class Trajectory:
    """A solved path.

    Attributes:
        states: shape (n + 1, b, *d), from the first time to the last.
        times: shape (n + 1,), decreasing.
    """

    states: Tensor
    times: Tensor

    @property
    def end(self) -> Tensor:
        """The last state, shape (b, *d)."""
        return self.states[-1]


def iterate(
    field: VelocityField,
    x: Tensor,
    times: Tensor | Iterable[float],
    cond: Any = None,
    step: Step = euler_step,
) -> Iterator[Tensor]:
    """Yield the state at every time, the first one included.

    Args:
        field: the velocity.
        x: state at times[0], shape (b, *d).
        times: decreasing times in [0, 1], shape (n + 1,).
        cond: condition, handed to the field.
        step: the solver.

    Yields:
        n + 1 states, shape (b, *d), float32 or float64.

    Raises:
        ValueError: if the times are not a decreasing sequence in [0, 1].
    """
    grid = _check_times(times)
    x = _at_least_float32(x)
    yield x
    for t_hi, t_lo in pairwise(grid.tolist()):
        x = step(field, x, t_hi, t_lo, cond)
        yield x


def iterate_multistep(
    field: VelocityField, x: Tensor, times: Tensor | Iterable[float], cond: Any = None
) -> Iterator[Tensor]:
    """Second order at one call a step: Adams and Bashforth's two-step method, for uneven steps.

    The velocity is continued along the line through its last two values and integrated; with steps
    d and d' (the one before), whose ratio is r = d / d',

        x(t + d) = x(t) + d * ((1 + r / 2) * v(t) - r / 2 * v(t - d')).

    See Hairer, Norsett and Wanner, Solving Ordinary Differential Equations I, section III.5. The
    first step, which has no velocity before it, is Euler's.

    Arguments, yields and errors as in `iterate`.
    """
    grid = _check_times(times)
    x = _at_least_float32(x)
    yield x
    before: tuple[float, Tensor] | None = None
    for t_hi, t_lo in pairwise(grid.tolist()):
        dt = t_lo - t_hi
        v = slope = _evaluate(field, x, t_hi, cond)
        if before is not None:
            dt_before, v_before = before
            slope = v + dt / dt_before / 2 * (v - v_before)
        before = dt, v
        x = x + dt * slope
        yield x


class Solver(Protocol):
    """A way through a grid of times. Arguments, yields and errors as in `iterate`."""

    def __call__(
        self, field: VelocityField, x: Tensor, times: Tensor | Iterable[float], cond: Any = None
    ) -> Iterator[Tensor]:
        """Yield the state at every time, the first one included."""
        ...


SOLVERS: dict[str, Solver] = {
    "euler": iterate,
    "heun": partial(iterate, step=heun_step),
    "multistep": iterate_multistep,
}
CALLS_PER_STEP = {"euler": 1, "heun": 2, "multistep": 1}
"""What a step of each solver costs in calls of the field."""


def find_solver(name: str) -> Solver:
    """The solver of a name.

    Raises:
        ValueError: if there is no such solver.
    """
    if name not in SOLVERS:
        raise ValueError(f"solver = {name!r} is unknown; use one of {', '.join(SOLVERS)}")
    return SOLVERS[name]


def rollout(
    field: VelocityField,
    x: Tensor,
    times: Tensor | Iterable[float],
    cond: Any = None,
    step: Step = euler_step,
) -> Trajectory:
    """Solve through all times and keep every state. Arguments and errors as in `iterate`."""
    states = torch.stack(list(iterate(field, x, grid := _check_times(times), cond, step)))
    return Trajectory(states, grid.to(states))


def _evaluate(field: VelocityField, x: Tensor, t: Time, cond: Any) -> Tensor:
    return field(x, time_like(t, x).expand(x.shape[0]), cond).to(x.dtype)


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _check_times(times: Tensor | Iterable[float]) -> Tensor:
    if not isinstance(times, Tensor):
        times = list(times)
    grid = torch.as_tensor(times, dtype=torch.float64)
    if grid.ndim != 1 or len(grid) < 2 or not bool((grid[1:] < grid[:-1]).all()):
        raise ValueError(f"times are {grid.tolist()}: give two or more, one after another falling")
    if not (grid[0] <= 1 and grid[-1] >= 0):
        raise ValueError(f"times run from {grid[0]:g} to {grid[-1]:g}: they must lie in [0, 1]")
    return grid
