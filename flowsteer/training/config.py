"""The settings of every training run, by the flag names of diffusers' training scripts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from flowsteer.limits import Within, check_fields
from flowsteer.training.launcher import check_launcher, chosen_precision
from flowsteer.validation import SEED_LIMIT

MOST_STEPS = 10_000_000


@dataclass(frozen=True)
class TrainingConfig:
    """Length, optimiser, precision, checkpoints and reports of a run.

    Raises:
        ValueError: naming the first value out of its range.
    """

    output_dir: str
    """Folder for checkpoints, logs and the result."""
    max_train_steps: Annotated[int | None, Within(1, MOST_STEPS)] = None
    """Stop after this many optimiser steps."""
    max_train_seconds: Annotated[float | None, Within(0, 10_000_000, above=True)] = None
    """Stop after this much wall-clock time; with both limits, at the first one reached."""
    train_batch_size: Annotated[int, Within(1, 16_384)] = 64
    """Samples per process and micro-step."""
    gradient_accumulation_steps: Annotated[int, Within(1, 4096)] = 1
    """Micro-steps per optimiser step."""
    learning_rate: Annotated[float, Within(0, 1, above=True)] = 2e-4
    """The highest; AdamW moves every weight by about as much in a step."""
    lr_scheduler: Literal["constant", "cosine"] = "cosine"
    lr_warmup_steps: Annotated[int, Within(0, MOST_STEPS)] = 50
    adam_beta1: Annotated[float, Within(0, 1, below=True)] = 0.9
    adam_beta2: Annotated[float, Within(0, 1, below=True)] = 0.99
    adam_weight_decay: Annotated[float, Within(0, 1)] = 0.01
    """Share of each weight, times the learning rate, that a step takes away."""
    max_grad_norm: Annotated[float, Within(0, 1e6, above=True)] = 1.0
    ema_decay: Annotated[float, Within(0, 1, below=True)] = 0.999
    mixed_precision: Literal["no", "bf16"] | None = None
    """Unset, what accelerate's launcher says, and no without one."""
    checkpointing_steps: Annotated[int, Within(1, MOST_STEPS)] = 500
    """Optimiser steps between checkpoints."""
    checkpoints_total_limit: Annotated[int | None, Within(1, MOST_STEPS)] = 2
    """Older checkpoints are removed."""
    resume_from_checkpoint: str | None = None
    """"latest", or a checkpoint's folder."""
    report_to: Literal["none", "tensorboard"] = "none"
    dataloader_num_workers: Annotated[int, Within(0, 256)] = 0
    compile: bool = False
    """Compile the repeated blocks, and replay a distillation's teacher and student as CUDA graphs
    (CUDA; a minute at the start)."""
    seed: Annotated[int, Within(0, SEED_LIMIT - 1)] = 0

    def __post_init__(self) -> None:
        check_fields(self)
        if self.max_train_steps is None and self.max_train_seconds is None:
            raise ValueError(
                "max_train_steps and max_train_seconds are both unset; set one to bound the run"
            )
        check_launcher(self.gradient_accumulation_steps)
        object.__setattr__(self, "mixed_precision", chosen_precision(self.mixed_precision))

    def progress(self, step: int, seconds: float) -> float:
        """Share of the run that is done, in [0, 1]: steps or time, whichever is further."""
        done = [0.0]
        if self.max_train_steps is not None:
            done.append(step / self.max_train_steps)
        if self.max_train_seconds is not None:
            done.append(seconds / self.max_train_seconds)
        return min(1.0, max(done))

    def learning_rate_at(self, step: int, progress: float) -> float:
        """Linear warm-up, then constant, or half a cosine down to zero at the end of the run."""
        rate = self.learning_rate
        if self.lr_scheduler == "cosine":
            rate *= 0.5 * (1 + math.cos(math.pi * progress))
        return rate * min(1.0, (step + 1) / (self.lr_warmup_steps + 1))
