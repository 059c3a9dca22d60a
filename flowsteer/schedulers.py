"""The rectified scheduler: drop-in for FlowMatchEulerDiscreteScheduler, no call wasted.

    pipe.scheduler = RectifiedFlowMatchEulerDiscreteScheduler.from_config(pipe.scheduler.config)

Without it, the same grid comes from stock diffusers with unshifted sigmas, here for four steps:
`pipe(prompt, num_inference_steps=4, sigmas=[1, 0.75, 0.5, 0.25])`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from diffusers.configuration_utils import register_to_config
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)
from diffusers.schedulers.scheduling_utils import SchedulerMixin

import flowsteer
from flowsteer.flow.grids import rectified_grid
from flowsteer.flow.windows import TimeWindows

# A saved pipeline names the scheduler as `flowsteer.Rectified...`, its `__module__` below, so that
# any program that has imported flowsteer gets it back. To load a class, diffusers wants to see
# the base class with the load method in the same module.
flowsteer.SchedulerMixin = SchedulerMixin


class RectifiedFlowMatchEulerDiscreteScheduler(FlowMatchEulerDiscreteScheduler):
    """Euler sampling on evenly spaced times with the terminal 0 among them, then shifted.

    Only the grid differs from the stock scheduler; `step` and `scale_noise` are its own. Where a
    pipeline passes `sigmas` itself (FLUX passes linspace(1, 1/N, N)) both do the same.

    Shift, dynamic shift (`mu`) and the Karras, exponential and beta spacings act on the N times
    before the terminal 0, as in stock. So does `shift_terminal`: it stretches them until the last
    time that is asked for equals it. A model that sets it wants exactly that, and its pipelines
    pass the same N times; a grid of one step has only t = 1 and is left alone.

    Args:
        window_edges: shifted times, from 1 down to 0, that every grid must contain: the edges of
            the windows a student was trained on. None allows any grid.
        allow_grid_mismatch: run on a grid without these edges all the same.
        num_train_timesteps: as in stock, like all arguments that follow.
        shift: see stock.
        use_dynamic_shifting: see stock.
        base_shift: see stock.
        max_shift: see stock.
        base_image_seq_len: see stock.
        max_image_seq_len: see stock.
        invert_sigmas: see stock.
        shift_terminal: see stock.
        use_karras_sigmas: see stock.
        use_exponential_sigmas: see stock.
        use_beta_sigmas: see stock.
        time_shift_type: see stock.
        stochastic_sampling: see stock.

    Raises:
        ValueError: if `shift` is not positive, or the edges do not fall from 1 to 0.
    """

    __module__ = "flowsteer"

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        shift: float = 1.0,
        use_dynamic_shifting: bool = False,
        base_shift: float | None = 0.5,
        max_shift: float | None = 1.15,
        base_image_seq_len: int = 256,
        max_image_seq_len: int = 4096,
        invert_sigmas: bool = False,
        shift_terminal: float | None = None,
        use_karras_sigmas: bool = False,
        use_exponential_sigmas: bool = False,
        use_beta_sigmas: bool = False,
        time_shift_type: Literal["exponential", "linear"] = "exponential",
        stochastic_sampling: bool = False,
        window_edges: list[float] | None = None,
        allow_grid_mismatch: bool = False,
    ) -> None:
        if not (math.isfinite(shift) and shift > 0):
            raise ValueError(f"shift is {shift}: give a positive number, 1 for no shift")
        if window_edges is not None:
            TimeWindows.from_grid(
                window_edges
            )  # bad edges must fail here, not at the first picture
        super().__init__(
            num_train_timesteps=num_train_timesteps,
            shift=shift,
            use_dynamic_shifting=use_dynamic_shifting,
            base_shift=base_shift,
            max_shift=max_shift,
            base_image_seq_len=base_image_seq_len,
            max_image_seq_len=max_image_seq_len,
            invert_sigmas=invert_sigmas,
            shift_terminal=shift_terminal,
            use_karras_sigmas=use_karras_sigmas,
            use_exponential_sigmas=use_exponential_sigmas,
            use_beta_sigmas=use_beta_sigmas,
            time_shift_type=time_shift_type,
            stochastic_sampling=stochastic_sampling,
        )

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        sigmas: Sequence[float] | None = None,
        mu: float | None = None,
        timesteps: Sequence[float] | None = None,
    ) -> None:
        """Choose the times for the next picture.

        Args:
            num_inference_steps: network calls N, at least 1; may be left out with `sigmas`.
            device: where `timesteps` and `sigmas` go.
            sigmas: *unshifted* times without the terminal 0, N of them; they are shifted here.
            mu: the dynamic shift; needed with `use_dynamic_shifting`, of no effect without.
            timesteps: refused.

        Raises:
            ValueError: for explicit `timesteps`, a number of steps below 1, a missing `mu`, or a
                grid that misses a window edge.
        """
        if timesteps is not None:
            raise ValueError(
                "explicit `timesteps` are not supported, since versions of diffusers disagree on "
                "whether to shift them: pass unshifted `sigmas`, or `num_inference_steps` alone"
            )
        if sigmas is None:
            if num_inference_steps is None:
                raise ValueError("no grid to choose: give `num_inference_steps` or `sigmas`")
            sigmas = rectified_grid(num_inference_steps)[:-1].tolist()
        super().set_timesteps(num_inference_steps, device, list(sigmas), mu)  # type: ignore[arg-type]
        edges = self.config["window_edges"]
        if edges is not None and not self.config["allow_grid_mismatch"]:
            grid = 1 - self.sigmas if self.config["invert_sigmas"] else self.sigmas
            TimeWindows.from_grid(edges).check_grid(grid)

    def stretch_shift_to_terminal(self, t: Any) -> Any:
        """Stretch times so that the last equals `shift_terminal`; a lone t = 1 stays put.

        Args:
            t: shifted times from 1 down, without the terminal 0, shape (N,).
        """
        return t if t[-1] == 1 else super().stretch_shift_to_terminal(t)
