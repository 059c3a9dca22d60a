"""The settings of `flowsteer distill`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from flowsteer.distill.methods import Method, find_method
from flowsteer.flow import GRIDS, TimeWindows
from flowsteer.training.config import TrainingConfig

Grid = Literal["rectified", "stock"]


@dataclass(frozen=True)
class DistillationConfig(TrainingConfig):
    """A run of `flowsteer distill`.

    Raises:
        ValueError: naming the first value out of its range, or that the method cannot do.
    """

    output_dir: str = "student"
    max_train_steps: int | None = 1000
    """Stop after this many optimiser steps."""
    pretrained_model_name_or_path: str = "emoji"
    """The teacher: "emoji", a pipeline folder, or a hub id."""
    student: str | None = None
    """Student to go on from, and its own teacher, unguided: the second round of ReFlow."""
    method: str = "ota"
    """"reflow", "perflow", "ota" or "flowsteer"."""
    rank: int | None = 24
    """Of the LoRA; None trains all weights."""
    lora_alpha: float | None = None
    """None means the rank."""
    num_windows: int | None = None
    """K, the student's least number of steps; unset, 4, or what the method demands."""
    grid: Grid = "rectified"
    """Whose times are the windows' edges; stock is the flawed one, for comparison."""
    guidance_min: float | None = None
    guidance_max: float | None = None
    """The teacher's scale is drawn evenly between both; unset, the teacher's default."""
    substeps: int = 7
    """Teacher steps per window."""
    solver: Literal["euler", "heun", "multistep"] = "euler"
    """Of the teacher's steps."""
    share_at_hi: float = 0.0
    """Share of times drawn at a window's start, where inference asks."""
    share_on_policy: float = 0.0
    """Share of samples whose windows start from the student's own states."""
    adversarial: bool | None = None
    """Train with the critic and feature matching; unset, as the method does."""
    lambda_adv: float = 0.03
    """Weight of the adversarial loss."""
    lambda_fm: float = 0.05
    """Weight of feature matching."""
    adversarial_loss: Literal["hinge", "non_saturating", "least_squares", "wasserstein"] = "hinge"
    critic_learning_rate: float = 1e-4
    """At 5e-4 the emoji teacher's critic forgets what it has learnt."""
    critic_depth: int | None = None
    """The teacher's first blocks that make the critic; unset, half of them."""
    critic_training: Literal["full", "lora", "frozen"] = "full"
    """What of the critic's backbone is trained."""
    critic_heads: Literal["last", "each"] = "last"
    """One head after the last block, or one after each."""
    critic_logits: Literal["token", "pooled"] = "token"
    """A verdict on every token, or one on their mean."""
    critic_states: Literal["step", "rollout"] = "step"
    """What the critic sees of the student: a step from the teacher's state, or its own rollout."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, a third more time."""
    offload_text_encoders: bool = False
    """Leave the text encoders on the CPU."""
    logging_steps: int = 1
    """Optimiser steps between reports. Each waits for the device: 5 or 10 let a GPU run ahead."""
    validation_steps: int | None = None
    """Every so many steps, the averaged student's distance to the teacher on fixed noises."""
    num_validation_images: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_windows()
        self._check_numbers()
        self._check_guidance()

    @property
    def preset(self) -> Method:
        """The method's."""
        return find_method(self.method)

    @property
    def windows(self) -> int:
        """K, once the method has had its say."""
        return (self.preset.num_windows or 4) if self.num_windows is None else self.num_windows

    @property
    def uses_critic(self) -> bool:
        """Whether there is a critic to train."""
        return self.preset.adversarial if self.adversarial is None else self.adversarial

    def edges(self, shift: float) -> TimeWindows:
        """The windows, on the grid of this run."""
        return TimeWindows.from_grid(GRIDS[self.grid](self.windows, shift))

    def guidance_range(self, default: float) -> tuple[float, float]:
        """Lowest and highest scale of the teacher, which has `default` of its own."""
        if self.guidance_min is None or self.guidance_max is None:
            return default, default
        return self.guidance_min, self.guidance_max

    def _check_windows(self) -> None:
        fixed = self.preset.num_windows
        if self.windows < 1:
            raise ValueError(f"num_windows = {self.windows} must be at least 1")
        if fixed is not None and self.windows != fixed:
            raise ValueError(
                f"num_windows = {self.windows}: the method {self.method!r} has {fixed}; leave"
                " --num_windows out"
            )
        if self.substeps < 1:
            raise ValueError(f"substeps = {self.substeps} must be at least 1")
        if self.share_on_policy and (self.preset.needs_data or fixed is not None):
            raise ValueError(
                f"share_on_policy = {self.share_on_policy}: the method {self.method!r} does not"
                " start windows from states; use ota or flowsteer"
            )

    def _check_numbers(self) -> None:
        for name in ("share_at_hi", "share_on_policy"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} = {getattr(self, name)} must lie in [0, 1]")
        for name in ("lambda_adv", "lambda_fm"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} = {getattr(self, name)} must be finite and at least 0")
        above_zero = {
            "critic_learning_rate": self.critic_learning_rate,
            "critic_depth": self.critic_depth,
            "logging_steps": self.logging_steps,
            "validation_steps": self.validation_steps,
            "num_validation_images": self.num_validation_images,
        }
        for name, value in above_zero.items():
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} = {value} must be finite and above 0")

    def _check_guidance(self) -> None:
        low, high = self.guidance_min, self.guidance_max
        if low is None and high is None:
            return
        if low is None or high is None or not 1 <= low <= high < 100:
            raise ValueError(
                f"guidance_min = {low}, guidance_max = {high}: give both, 1 <= min <= max < 100"
            )
