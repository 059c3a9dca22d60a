"""A pipeline's scheduler: put in place for good, or made for one call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from flowsteer.flow.grids import shift_sigmas, unshift_sigmas
from flowsteer.pipeline_info import pipeline_info
from flowsteer.validation import check_scheduler

if TYPE_CHECKING:
    from flowsteer.schedulers import RectifiedFlowMatchEulerDiscreteScheduler


def set_scheduler(
    pipe: Any,
    scheduler: str = "rectified",
    window_edges: tuple[float, ...] | None = None,
    allow_grid_mismatch: bool = False,
) -> None:
    """Give a flow-matching pipeline the rectified or the stock Euler scheduler, in place.

    Raises:
        ValueError: if its present scheduler is no FlowMatchEulerDiscreteScheduler.
    """
    check_flow_scheduler(pipe)
    if check_scheduler(scheduler) == "stock":
        pipe.scheduler = stock_scheduler(pipe.scheduler)
    else:
        pipe.scheduler = _rectified(pipe.scheduler, window_edges, allow_grid_mismatch)


def check_flow_scheduler(pipe: Any) -> None:
    """Make sure that a pipeline steps as our grids assume.

    Raises:
        ValueError: if its scheduler is no FlowMatchEulerDiscreteScheduler.
    """
    from diffusers import FlowMatchEulerDiscreteScheduler

    if not isinstance(pipe.scheduler, FlowMatchEulerDiscreteScheduler):
        raise ValueError(
            f"{type(pipe).__name__} uses {type(pipe.scheduler).__name__}; flowsteer needs a"
            " flow-matching model with FlowMatchEulerDiscreteScheduler"
        )


def stock_scheduler(own: Any) -> Any:
    """Stock's scheduler with the settings of a rectified one, without those that it lacks."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    lacking = ("window_edges", "allow_grid_mismatch")
    config = {name: value for name, value in own.config.items() if name not in lacking}
    return FlowMatchEulerDiscreteScheduler.from_config(config, shift=own.shift)


def call_scheduler(
    pipe: Any, allow_grid_mismatch: bool = False
) -> RectifiedFlowMatchEulerDiscreteScheduler:
    """A scheduler for one call, which changes it: the pipeline's own settings, a student's edges.

    Raises:
        ValueError: if the pipeline's is no FlowMatchEulerDiscreteScheduler.
    """
    check_flow_scheduler(pipe)
    student, config = pipeline_info(pipe).student, pipe.scheduler.config
    edges = student.info.edges if student else config.get("window_edges")
    allowed = allow_grid_mismatch or bool(config.get("allow_grid_mismatch"))
    return _rectified(pipe.scheduler, edges, allowed)


def stock_sigmas(pipe: Any, num_inference_steps: int) -> list[float]:
    """The frozen stock grid without its end, as the unshifted `sigmas` that a pipeline takes.

    The last time that the model was trained at is shifted before the pipeline shifts them all.
    """
    scheduler = pipe.scheduler
    last = 1 / scheduler.config.num_train_timesteps
    if not scheduler.config.use_dynamic_shifting:
        last = shift_sigmas(last, scheduler.shift)
    return torch.linspace(1, last, num_inference_steps, dtype=torch.float64).tolist()


def unshifted_sigmas(pipe: Any, grid: Sequence[float]) -> list[float]:
    """A grid without its end as the unshifted `sigmas` that a pipeline takes.

    Args:
        pipe: whose scheduler will shift them.
        grid: times (N + 1,) from 1 to 0, as after the shift.

    Raises:
        ValueError: if the model's shift depends on the picture's size.
    """
    if pipe.scheduler.config.use_dynamic_shifting:
        raise ValueError("grid is given, and the model shifts it by size; give scheduler instead")
    times = torch.tensor(list(grid)[:-1], dtype=torch.float64)
    return unshift_sigmas(times, pipe.scheduler.shift).tolist()


def _rectified(own: Any, window_edges: Any, allow_grid_mismatch: bool) -> Any:
    from flowsteer.schedulers import RectifiedFlowMatchEulerDiscreteScheduler

    return RectifiedFlowMatchEulerDiscreteScheduler.from_config(
        own.config,
        shift=own.shift,  # which set_shift moves without a word in the config
        window_edges=None if window_edges is None else list(window_edges),
        allow_grid_mismatch=allow_grid_mismatch,
    )
