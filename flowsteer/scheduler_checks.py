"""What the scheduler is asked for: explicit times, a dynamic shift, another's configuration.

Every check raises a one-line `ValueError` that names the value, the limit and the fix.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flowsteer.flow.grids import format_grid
from flowsteer.validation import MAX_STEPS, shorten


def check_times(name: str, times: Any) -> list[float] | None:
    """Explicit times, a list, an array or a tensor, as 1 to 1,000 finite floats."""
    if times is None:
        return None
    try:
        values = np.asarray(times.detach().cpu().float() if torch.is_tensor(times) else times)
    except (TypeError, ValueError):  # lists of unequal lengths in a list
        values = np.asarray(None)
    if values.dtype.kind not in "fiu" or values.ndim != 1 or not 0 < len(values) <= MAX_STEPS:
        raise ValueError(
            f"{name} = {shorten(times)} must be a list of 1 to {MAX_STEPS:,} numbers, such as "
            "sigmas = [1, 0.75, 0.5, 0.25]"
        )
    if not np.isfinite(values).all():
        raise ValueError(f"{name} = {shorten(values.tolist())} must be finite numbers")
    return values.astype(np.float64).tolist()


def without_terminal(times: list[float] | None) -> list[float] | None:
    """Leave the terminal 0 out: the scheduler appends its own, and a call there moves nothing."""
    return times[:-1] if times and len(times) > 1 and abs(times[-1]) < 1e-6 else times


def check_counts(
    num_steps: int | None, sigmas: Sequence[float] | None, timesteps: Sequence[float] | None
) -> None:
    """Refuse times that are not N, or not as many of one kind as of the other."""
    given = {"sigmas": sigmas, "timesteps": timesteps}
    counts = {name: len(times) for name, times in given.items() if times is not None}
    if num_steps is not None:
        counts["num_inference_steps"] = num_steps
    if len(set(counts.values())) > 1:
        told = " and ".join(f"{name} ({count})" for name, count in counts.items())
        raise ValueError(
            f"{told} differ: give as many times as network calls, without the terminal 0"
        )


def check_mu(mu: Any) -> float:
    """The dynamic shift as a float; its exponential must stay finite."""
    try:
        value = float(mu)
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if not abs(value) <= 100:
        raise ValueError(f"mu = {shorten(mu)} must be a number from -100 to 100, such as 1.15")
    return value


def flow_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Another flow scheduler's configuration under the names of the stock one."""
    if config.get("use_flow_sigmas"):  # a multistep solver, which calls its shift otherwise
        other = {"use_flow_sigmas", "flow_shift", "prediction_type"}
        kept = {key: value for key, value in config.items() if key not in other}
        return {**kept, "shift": config.get("flow_shift") or 1.0}
    if "beta_schedule" in config:
        name = config.get("_class_name", "a scheduler with `beta_schedule`")
        raise ValueError(
            f"the configuration is that of {name}, for a diffusion that predicts noise and not a "
            "flow: use this scheduler with flow-matching models such as Stable Diffusion 3"
        )
    return dict(config)


def find_timestep(grid: Tensor, timestep: float | Tensor, tolerance: float) -> int:
    """Where in a grid a timestep stands, up to `tolerance` and the rounding of its own precision.

    Args:
        grid: timesteps, shape (N,).
        timestep: a number, or a tensor that holds one.
        tolerance: what float32 leaves of a whole number.

    Raises:
        ValueError: if the grid has no such timestep.
    """
    time = torch.as_tensor(timestep)
    if time.numel() != 1:
        raise ValueError(f"timestep has the shape {tuple(time.shape)}: look up one at a time")
    distance = (grid.cpu().double() - float(time)).abs()
    precision = torch.finfo(time.dtype).eps if time.is_floating_point() else 0.0
    if not distance.min() <= max(tolerance, precision * abs(float(time))):
        raise ValueError(
            f"timestep {float(time):g} is not on the time grid {shorten_grid(grid)}; the nearest "
            f"is {grid[distance.argmin()].item():.7g}: pass one of `scheduler.timesteps`"
        )
    nearest = (distance == distance.min()).nonzero().flatten()
    return int(nearest[min(1, len(nearest) - 1)])  # of two equal ones the second, as in stock


def shorten_grid(grid: Tensor, width: int = 60) -> str:
    """`format_grid` in at most `width` characters."""
    text = format_grid(grid)
    return text if len(text) <= width else text[: width - 3] + "..."
