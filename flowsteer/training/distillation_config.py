"""The settings of `flowsteer distill`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from flowsteer.distill.methods import Method, find_method
from flowsteer.flow import GRIDS, TimeWindows
from flowsteer.limits import Within, check_fields
from flowsteer.training.config import MOST_STEPS, TrainingConfig
from flowsteer.training.presets import find_preset

Grid = Literal["rectified", "stock"]
STEPS_ON_PATH = 16
SPREAD = 1 / 8
"""Of the teacher's guidance around its own scale: 4 is drawn from U[3.5, 4.5]."""


@dataclass(frozen=True)
class DistillationConfig(TrainingConfig):
    """A run of `flowsteer distill`; the defaults are the recipe of the bundled students.

    Raises:
        ValueError: naming the first value out of its range, or that the method cannot do.
    """

    output_dir: str = "student"
    preset: Literal["laptop", "gpu"] | None = None
    """Flags that were measured together; flags that are given beside it win. laptop: eleven minutes
    on two CPU cores. gpu: the bundled student's recipe, eight minutes of an H100."""
    max_train_steps: int | None = 700
    """Stop after this many optimiser steps."""
    train_batch_size: int = 256
    """Samples per process and micro-step."""
    learning_rate: float = 4e-3
    """The highest; AdamW moves every weight by about as much in a step. For a LoRA: give 1e-4 or
    less to all weights."""
    lr_warmup_steps: int = 20
    ema_decay: float = 0.99
    pretrained_model_name_or_path: str = "emoji"
    """The teacher: "emoji", a pipeline folder, or a hub id."""
    student: str | None = None
    """Student to go on from, and its own teacher, unguided: the second round of ReFlow."""
    method: str = "flowsteer"
    """"reflow", "perflow", "ota" or "flowsteer"."""
    rank: Annotated[int | None, Within(1, 1024)] = 24
    """Of the LoRA; None trains all weights."""
    lora_alpha: Annotated[float | None, Within(1e-6, 65_536)] = None
    """None means the rank."""
    num_windows: Annotated[int | None, Within(1, 64)] = None
    """K, the student's least number of steps; unset, 4, or what the method demands."""
    grid: Grid = "rectified"
    """Whose times are the windows' edges; stock is the flawed one, for comparison."""
    guidance_min: Annotated[float | None, Within(1, 100)] = None
    guidance_max: Annotated[float | None, Within(1, 100)] = None
    """The teacher's scale is drawn evenly between both; unset, an eighth around its default."""
    substeps: Annotated[int | None, Within(1, 256)] = None
    """Teacher steps per window; unset, 16 on the whole path."""
    solver: Literal["euler", "heun", "multistep"] = "multistep"
    """Of the teacher's steps."""
    share_at_hi: Annotated[float, Within(0, 1)] = 0.8
    """Share of times drawn at a window's start, where inference asks."""
    share_on_policy: Annotated[float, Within(0, 1)] = 0.0
    """Share of samples whose windows start from the student's own states."""
    adversarial: bool | None = None
    """Train with the critic and feature matching; unset, as the method does."""
    lambda_adv: Annotated[float, Within(0, 1000)] = 0.03
    """Weight of the adversarial loss."""
    lambda_fm: Annotated[float, Within(0, 1000)] = 0.05
    """Weight of feature matching."""
    adversarial_loss: Literal["hinge", "non_saturating", "least_squares", "wasserstein"] = "hinge"
    critic_learning_rate: Annotated[float, Within(0, 1, above=True)] = 1e-4
    """At 5e-4 the emoji teacher's critic forgets what it has learnt."""
    critic_depth: Annotated[int | None, Within(1, 128)] = None
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
    logging_steps: Annotated[int, Within(1, MOST_STEPS)] = 1
    """Optimiser steps between reports. Each waits for the device: 5 or 10 let a GPU run ahead."""
    validation_steps: Annotated[int | None, Within(1, MOST_STEPS)] = None
    """Every so many steps, the averaged student's distance to the teacher on fixed noises."""
    num_validation_images: Annotated[int, Within(1, 1024)] = 8

    @classmethod
    def from_preset(cls, preset: str, **changes: Any) -> Self:
        """The settings of a preset, but for the changes given.

        Raises:
            ValueError: if there is no such preset, or a value is out of its range.
        """
        return cls(**{"preset": preset, **find_preset(preset).flags, **changes})

    def __post_init__(self) -> None:
        check_fields(self)
        if self.preset is not None and self.mixed_precision is None:  # every preset has one
            raise ValueError(
                f"preset = {self.preset!r} brings no flags by itself; use"
                f" from_preset({self.preset!r})"
            )
        super().__post_init__()
        self._check_windows()
        object.__setattr__(self, "substeps", self.teacher_steps)
        self._check_guidance()

    @property
    def teaching(self) -> Method:
        """What the method is."""
        return find_method(self.method)

    @property
    def windows(self) -> int:
        """K, once the method has had its say."""
        return (self.teaching.num_windows or 4) if self.num_windows is None else self.num_windows

    @property
    def teacher_steps(self) -> int:
        """Of the teacher in a window, once its default is known."""
        return self.substeps or -(-STEPS_ON_PATH // self.windows)

    @property
    def uses_critic(self) -> bool:
        """Whether there is a critic to train."""
        return self.teaching.adversarial if self.adversarial is None else self.adversarial

    def edges(self, shift: float) -> TimeWindows:
        """The windows, on the grid of this run."""
        return TimeWindows.from_grid(GRIDS[self.grid](self.windows, shift))

    def guidance_range(self, default: float) -> tuple[float, float]:
        """Lowest and highest scale of the teacher, whose own is `default` (1: no guidance)."""
        if self.guidance_min is None or self.guidance_max is None:
            if default == 1:  # a student that teaches itself
                return 1.0, 1.0
            return max(1.0, default * (1 - SPREAD)), default * (1 + SPREAD)
        return self.guidance_min, self.guidance_max

    def _check_windows(self) -> None:
        fixed = self.teaching.num_windows
        if fixed is not None and self.windows != fixed:
            raise ValueError(
                f"num_windows = {self.windows}: the method {self.method!r} has {fixed}; leave"
                " --num_windows out"
            )
        if self.share_on_policy and (self.teaching.needs_data or fixed is not None):
            raise ValueError(
                f"share_on_policy = {self.share_on_policy}: the method {self.method!r} does not"
                " start windows from states; use ota or flowsteer"
            )

    def _check_guidance(self) -> None:
        low, high = self.guidance_min, self.guidance_max
        if low is None and high is None:
            return
        if low is None or high is None or low > high:
            raise ValueError(
                f"guidance_min = {low}, guidance_max = {high}: give both, 1 <= min <= max <= 100"
            )
