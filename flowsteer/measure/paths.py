"""How straight paths are, and how fast a solver's error falls."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor


def straightness(states: Tensor, times: Tensor) -> Tensor:
    """How far paths are from straight lines at constant speed, 0 for those.

    The integral of |v(x_t, t) - (x_1 - x_0)|^2 over t, of Liu et al. 2023 (arXiv 2209.03003,
    equation 5), in units of |x_1 - x_0|^2; v is the slope between neighbouring states.

    Args:
        states: (n + 1, b, *d), from noise to data.
        times: (n + 1,), falling.

    Returns:
        (b,) float64.

    Raises:
        ValueError: if states and times do not go together, or a path ends where it began.
    """
    slopes, steps = _slopes(states, times)
    whole = (states[0] - states[-1]).double().flatten(1) / (times[0] - times[-1])  # (b, d)
    scale = whole.square().sum(-1)
    if not bool((scale > 0).all()):
        raise ValueError("a path ends where it began; its straightness has no scale")
    away = (slopes - whole).square().sum(-1)  # (n, b)
    return (away * steps[:, None]).sum(0) / (times[0] - times[-1]).double() / scale


def acceleration(states: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
    """|dv/dt| along paths: how fast the velocity changes for who travels; 0 on straight lines.

    Arguments as in `straightness`, with three states or more.

    Returns:
        The inner times (n - 1,), and the acceleration there (n - 1, b), float64.

    Raises:
        ValueError: if states and times do not go together, or are fewer than three.
    """
    if len(times) < 3:
        raise ValueError(f"{len(times)} states have no acceleration; give at least 3")
    slopes, steps = _slopes(states, times)
    apart = (steps[1:] + steps[:-1])[:, None] / 2
    return times[1:-1], (slopes[1:] - slopes[:-1]).norm(dim=-1) / apart


def measured_order(steps: Sequence[int], errors: Sequence[float]) -> float:
    """The p of error ~ steps^-p: minus the slope of log error on log steps, by least squares.

    Raises:
        ValueError: if there are fewer than two points, or one is not positive.
    """
    if len(steps) < 2 or len(steps) != len(errors):
        raise ValueError(f"{len(steps)} steps and {len(errors)} errors; give two or more of each")
    if not all(value > 0 for value in (*steps, *errors)):
        raise ValueError("steps and errors must be positive; leave out what is exact")
    x = torch.tensor([math.log(count) for count in steps], dtype=torch.float64)
    y = torch.tensor([math.log(error) for error in errors], dtype=torch.float64)
    x = x - x.mean()
    return -float((x * y).sum() / x.square().sum())


def _slopes(states: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
    """dx/dt between neighbours (n, b, d) and the lengths of the steps (n,), float64."""
    times = times.double()
    if len(states) != len(times) or any(low >= high for high, low in pairwise(times.tolist())):
        raise ValueError(
            f"{len(states)} states at {len(times)} times: give one for each, at falling times"
        )
    steps = times[:-1] - times[1:]
    moved = (states[:-1] - states[1:]).double().flatten(2)
    return moved / steps[:, None, None], steps
