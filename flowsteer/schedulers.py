"""The rectified scheduler: drop-in for FlowMatchEulerDiscreteScheduler, no call wasted.

    pipe.scheduler = RectifiedFlowMatchEulerDiscreteScheduler.from_config(pipe.scheduler.config)

Without it, the same grid comes from stock diffusers with unshifted sigmas, here for four steps:
`pipe(prompt, num_inference_steps=4, sigmas=[1, 0.75, 0.5, 0.25])`.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from typing import Any, Literal

import torch
from diffusers.configuration_utils import register_to_config
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)
from diffusers.schedulers.scheduling_utils import SchedulerMixin

import flowsteer
from flowsteer.flow.grids import check_shift, rectified_grid
from flowsteer.flow.windows import TimeWindows
from flowsteer.scheduler_checks import (
    check_counts,
    check_mu,
    check_times,
    find_timestep,
    flow_config,
    shorten_grid,
    without_terminal,
)
from flowsteer.validation import check_num_inference_steps, check_whole_number, shorten

# A saved pipeline names the scheduler as `flowsteer.Rectified...`, its `__module__` below, so that
# any program that has imported flowsteer gets it back. To load a class, diffusers wants to see
# the base class with the load method in the same module.
flowsteer.SchedulerMixin = SchedulerMixin


class RectifiedFlowMatchEulerDiscreteScheduler(FlowMatchEulerDiscreteScheduler):
    """Euler sampling on evenly spaced times with the terminal 0 among them, then shifted.

    Only the grid differs from the stock scheduler; `step` and `scale_noise` are its own, but for
    clearer refusals. Where a pipeline passes `sigmas` itself (FLUX passes linspace(1, 1/N, N)), or
    `sigmas` and `timesteps` (CogView4, GLM-Image), both do the same.

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
    _compatibles = ["FlowMatchEulerDiscreteScheduler"]

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
        check_shift(shift)
        check_whole_number("num_train_timesteps", num_train_timesteps, 1, 10**6)
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

    @classmethod
    def from_config(
        cls, config: Any = None, return_unused_kwargs: bool = False, **kwargs: Any
    ) -> Any:
        """Make a scheduler from the configuration of any other for flows; see stock.

        The multistep solvers of Wan and SANA call their shift `flow_shift`; it is `shift` here.

        Raises:
            ValueError: if the configuration is that of a diffusion that predicts noise.
        """
        if isinstance(config, Mapping):
            config = flow_config(config)
        return super().from_config(config, return_unused_kwargs, **kwargs)

    @classmethod
    def _get_compatibles(cls) -> list[type]:
        return [cls, *super()._get_compatibles()]

    def set_shift(self, shift: float) -> None:
        """Move the next grid; see stock.

        Raises:
            ValueError: if `shift` is not a positive finite number.
        """
        check_shift(shift)
        super().set_shift(shift)

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        sigmas: Any = None,
        mu: float | None = None,
        timesteps: Any = None,
    ) -> None:
        """Choose the times for the next picture. A refusal leaves the present grid in place.

        Args:
            num_inference_steps: network calls N, 1 to 1,000; may be left out with `sigmas`.
            device: where `timesteps` and `sigmas` go.
            sigmas: *unshifted* times from at most 1 down, N of them: a list, an array or a tensor;
                they are shifted here. A terminal 0 at their end asks for no call of its own.
            mu: the dynamic shift; needed with `use_dynamic_shifting`, of no effect without.
            timesteps: what the network is told at each of the N times, never shifted. Pass
                `sigmas` with them; alone they are taken where no shift makes the two differ.

        Raises:
            ValueError: for a number of steps out of range, a missing `mu`, times that do not fall
                from at most 1, numbers that differ, or a grid that misses a window edge.
        """
        if num_inference_steps is not None:
            num_inference_steps = check_num_inference_steps(num_inference_steps)
        elif sigmas is None and timesteps is None:
            raise ValueError("no grid to choose: give `num_inference_steps` or `sigmas`")
        if self.config["use_dynamic_shifting"] and mu is not None:
            mu = check_mu(mu)
        times, told = check_times("sigmas", sigmas), check_times("timesteps", timesteps)
        if not self.config["shift_terminal"]:  # which moves a last 0 to a time of its own
            times, told = without_terminal(times), without_terminal(told)
        check_counts(num_inference_steps, times, told)
        if times is None:
            times = self._default_times(num_inference_steps, told)
        trial = copy.copy(self)
        super(RectifiedFlowMatchEulerDiscreteScheduler, trial).set_timesteps(
            num_inference_steps, device, times, mu, told
        )
        trial._check_grid(times, mu)
        if sigmas is None and told is not None:
            trial._check_told()
        self.__dict__.update(trial.__dict__)

    def _default_times(self, num_steps: int | None, told: list[float] | None) -> list[float]:
        """Unshifted times where no sigmas are given, shape (N,)."""
        if told is None:
            return rectified_grid(check_num_inference_steps(num_steps))[:-1].tolist()
        # in float32, as in stock, so that no time differs by a rounding error
        return (torch.tensor(told) / self.config["num_train_timesteps"]).tolist()

    def _check_grid(self, times: list[float], mu: float | None) -> None:
        """Refuse a grid that does not fall, or that misses a window edge."""
        grid = 1 - self.sigmas if self.config["invert_sigmas"] else self.sigmas
        highest = self.config.get("sigma_max") or 1.0  # Cosmos sets one, for its Karras spacing
        if not (bool((grid[:-1] > grid[1:]).all()) and grid[0] <= highest + 1e-6):
            moved = f"mu {mu:g}" if self.config["use_dynamic_shifting"] else f"shift {self.shift:g}"
            raise ValueError(
                f"sigmas = {shorten(times)} with {moved} give the time grid {shorten_grid(grid)}: "
                "its times must fall from at most 1 to 0; pass unshifted `sigmas` that do"
            )
        edges = self.config["window_edges"]
        if edges is not None and not self.config["allow_grid_mismatch"]:
            TimeWindows.from_grid(edges).check_grid(grid)

    def _check_told(self) -> None:
        """Refuse timesteps that name other times than those the sampler stands at."""
        told = self.timesteps / self.config["num_train_timesteps"]
        if not torch.allclose(told, self.sigmas[:-1], rtol=0, atol=1e-5):
            raise ValueError(
                "explicit `timesteps` alone are not supported with a shift, since versions of "
                "diffusers disagree on whether to shift them: pass unshifted `sigmas`, or "
                "`num_inference_steps` alone"
            )

    def stretch_shift_to_terminal(self, t: Any) -> Any:
        """Stretch times (N,) so that the last equals `shift_terminal`; a lone t = 1 stays put."""
        return t if t[-1] == 1 else super().stretch_shift_to_terminal(t)

    def set_begin_index(self, begin_index: float = 0) -> None:
        """Start in the middle of the grid, as image-to-image does.

        Args:
            begin_index: calls to leave out, 0 to N.

        Raises:
            ValueError: if it is no whole number in that range.
        """
        if isinstance(begin_index, float) and begin_index.is_integer():
            begin_index = int(begin_index)
        super().set_begin_index(
            check_whole_number("begin_index", begin_index, 0, len(self.timesteps))
        )

    def index_for_timestep(
        self, timestep: float | torch.Tensor, schedule_timesteps: torch.Tensor | None = None
    ) -> int:
        """Where in the grid a timestep stands, up to the rounding of its own precision.

        Args:
            timestep: one of the grid's timesteps; whole numbers and half precision are fine.
            schedule_timesteps: the grid, shape (N,); the scheduler's own by default.

        Raises:
            ValueError: if the grid has no such timestep.
        """
        grid = self.timesteps if schedule_timesteps is None else schedule_timesteps
        return find_timestep(grid, timestep, 1e-6 * self.config["num_train_timesteps"])

    def scale_noise(
        self,
        sample: torch.Tensor,
        timestep: float | torch.Tensor,
        noise: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The straight path's state at each timestep, (1 - sigma) * sample + sigma * noise.

        Args:
            sample: shape (b, *d).
            timestep: of the grid, one for all or one for each, shape () or (1,) or (b,).
            noise: shape (b, *d).

        Raises:
            ValueError: if the grid has no such timestep, or there is no noise.
        """
        if noise is None:
            raise ValueError("there is no noise to mix in: give `noise` of the shape of `sample`")
        time = torch.as_tensor(timestep, device=sample.device).reshape(-1)
        if len(time) != 1 != len(sample) != len(time):
            raise ValueError(
                f"there are {len(time)} timesteps for {len(sample)} samples: give one, or one each"
            )
        return super().scale_noise(sample, time, noise)

    def scale_model_input(self, sample: torch.Tensor, timestep: Any = None) -> torch.Tensor:
        """Return the sample as it is: a flow scales nothing, but Bria's pipeline asks."""
        return sample

    @functools.wraps(FlowMatchEulerDiscreteScheduler.step)
    def step(self, *args: Any, **kwargs: Any) -> Any:
        """Stock's Euler step; one more than the grid has is refused."""
        if self.step_index is not None and self.step_index >= len(self.sigmas) - 1:
            raise ValueError(
                f"all {len(self.sigmas) - 1} steps of the grid are taken: call `set_timesteps` "
                "before the next picture"
            )
        return super().step(*args, **kwargs)
