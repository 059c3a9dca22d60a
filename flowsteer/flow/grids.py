"""Time grids: where a sampler with N network calls stands still to ask for a velocity.

A grid is a decreasing float64 tensor of N + 1 times, from exactly 1 to exactly 0. The shift moves
times towards noise (Esser et al., 2024, section 5.3.2); SD3 uses shift 3.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor

from flowsteer.validation import shorten

TRAIN_TIMESTEPS = 1000
"""The discrete times that diffusers trains on and picks from."""

MAX_NUM_STEPS = 10**6
"""More steps than this are a typing error, and their grid would fill the memory."""

Times = TypeVar("Times", float, Tensor)


def shift_sigmas(s: Times, shift: float) -> Times:
    """Shift times towards noise: shift * s / (1 + (shift - 1) * s). Keeps 0 and 1 exactly.

    Raises:
        ValueError: if `shift` is not a positive finite number.
    """
    check_shift(shift)
    return shift * s / (1 - s + shift * s)  # this order of terms divides shift by shift at s = 1


def unshift_sigmas(s: Times, shift: float) -> Times:
    """Undo `shift_sigmas`: s / (shift - (shift - 1) * s).

    Raises:
        ValueError: if `shift` is not a positive finite number.
    """
    check_shift(shift)
    return s / (s + shift * (1 - s))


def rectified_grid(num_steps: int, shift: float = 1.0) -> Tensor:
    """N + 1 evenly spaced times with the terminal 0 among them, then shifted.

    Every call covers the same share of the unshifted path; for shift 3 and N = 4 the grid is
    [1, 0.9, 0.75, 0.5, 0]. This is the scheduler fix of FlowSteer (arXiv 2511.18834).

    Args:
        num_steps: network calls N, at least 1.
        shift: positive number; 1 leaves the times evenly spaced.

    Returns:
        float64, shape (N + 1,).

    Raises:
        ValueError: if `num_steps` or `shift` is out of range.
    """
    num_steps = _check_num_steps(num_steps)
    return shift_sigmas(torch.linspace(1, 0, num_steps + 1, dtype=torch.float64), shift)


def stock_grid(num_steps: int, shift: float = 1.0) -> Tensor:
    """Frozen copy of what FlowMatchEulerDiscreteScheduler of diffusers 0.42 does, flaws included.

    It spaces N times evenly from 1 to the last trained one, and only then appends 0, so the last
    call has almost nothing left to cover; and it shifts that last trained time twice
    (huggingface/diffusers issue 13243). For shift 3 and N = 4: [1, 0.8577, 0.6022, 0.0089, 0].
    The copy keeps the baseline the same when diffusers changes.

    Args:
        num_steps: network calls N, at least 1.
        shift: positive number.

    Returns:
        float64, shape (N + 1,).

    Raises:
        ValueError: if `num_steps` or `shift` is out of range.
    """
    num_steps = _check_num_steps(num_steps)
    last_trained = shift_sigmas(1 / TRAIN_TIMESTEPS, shift)
    times = shift_sigmas(torch.linspace(1, last_trained, num_steps, dtype=torch.float64), shift)
    return torch.cat([times, times.new_zeros(1)])


def refine_grid(grid: Iterable[float] | Tensor, substeps: int, shift: float = 1.0) -> Tensor:
    """Cut every interval of a grid into `substeps` parts, even in unshifted time.

    Every time of the grid stays where it is. A rectified grid of N steps becomes, up to rounding,
    the rectified grid of N * substeps steps with the same shift.

    Args:
        grid: decreasing times, shape (N + 1,).
        substeps: parts per interval, at least 1.
        shift: positive number.

    Returns:
        float64, shape (N * substeps + 1,).

    Raises:
        ValueError: if `substeps` or `shift` is out of range.
    """
    substeps = _check_num_steps(substeps)
    coarse = torch.tensor([float(t) for t in grid], dtype=torch.float64)
    s = unshift_sigmas(coarse, shift)[:, None]
    share = torch.arange(substeps, dtype=torch.float64) / substeps
    fine = shift_sigmas(s[:-1] + share * (s[1:] - s[:-1]), shift)
    fine[:, 0] = coarse[:-1]  # shifting back and forth would move the edges by a rounding error
    return torch.cat([fine.flatten(), coarse[-1:]])


def format_grid(grid: Iterable[float] | Tensor) -> str:
    """Write a grid for people, to four decimals: '[1, 0.9, 0.75, 0.5, 0]'."""
    return "[" + ", ".join(f"{round(float(t), 4):g}" for t in grid) + "]"


def check_shift(shift: Any) -> None:
    """Refuse a shift that is not a positive finite number.

    Raises:
        ValueError: naming the value and the fix.
    """
    try:
        value = math.nan if isinstance(shift, (bool, str)) else float(shift)
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise ValueError(
            f"shift is {shorten(shift)}: give a positive number, 1 for no shift, 3 for SD3"
        )


def _check_num_steps(num_steps: Any) -> int:
    try:
        number = 0 if isinstance(num_steps, bool) else operator.index(num_steps)
    except TypeError:
        number = 0
    if not 1 <= number <= MAX_NUM_STEPS:
        raise ValueError(
            f"the number of steps is {shorten(num_steps)}: give a whole number of at least 1, at "
            f"most {MAX_NUM_STEPS:,}"
        )
    return number


GRIDS: dict[str, Callable[[int, float], Tensor]] = {
    "stock": stock_grid,
    "rectified": rectified_grid,
}
"""(steps, shift) -> times (steps + 1,), by the scheduler's name."""
