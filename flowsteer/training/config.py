"""The settings of every training run, by the flag names of diffusers' training scripts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class TrainingConfig:
    """Length, optimiser, precision, checkpoints and reports of a run.

    Raises:
        ValueError: naming the first value out of its range.
    """

    output_dir: str
    """Folder for checkpoints, logs and the result."""
    max_train_steps: int | None = None
    """Stop after this many optimiser steps."""
    max_train_seconds: float | None = None
    """Stop after this much wall-clock time; with both limits, at the first one reached."""
    train_batch_size: int = 64
    """Samples per process and micro-step."""
    gradient_accumulation_steps: int = 1
    """Micro-steps per optimiser step."""
    learning_rate: float = 2e-4
    lr_scheduler: Literal["constant", "cosine"] = "cosine"
    lr_warmup_steps: int = 50
    adam_beta1: float = 0.9
    adam_beta2: float = 0.99
    adam_weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    ema_decay: float = 0.999
    mixed_precision: Literal["no", "bf16"] = "no"
    checkpointing_steps: int = 500
    """Optimiser steps between checkpoints."""
    checkpoints_total_limit: int | None = 2
    """Older checkpoints are removed."""
    resume_from_checkpoint: str | None = None
    """"latest", or a checkpoint's folder."""
    report_to: Literal["none", "tensorboard"] = "none"
    dataloader_num_workers: int = 0
    compile: bool = False
    """Compile the repeated blocks, and replay a distillation's teacher and student as CUDA graphs
    (CUDA; a minute at the start)."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_train_steps is None and self.max_train_seconds is None:
            raise ValueError(
                "max_train_steps and max_train_seconds are both unset; set one to bound the run"
            )
        positive = {
            "max_train_steps": self.max_train_steps,
            "max_train_seconds": self.max_train_seconds,
            "train_batch_size": self.train_batch_size,
            "gradient_accumulation_steps": self.gradient_accumulation_steps,
            "learning_rate": self.learning_rate,
            "max_grad_norm": self.max_grad_norm,
            "checkpointing_steps": self.checkpointing_steps,
            "checkpoints_total_limit": self.checkpoints_total_limit,
        }
        for name, value in positive.items():
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise ValueError(f"{name} = {value} must be finite and above 0")
        for name in ("ema_decay", "adam_beta1", "adam_beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)} must lie in [0, 1)")
        if self.lr_warmup_steps < 0:
            raise ValueError(f"lr_warmup_steps = {self.lr_warmup_steps} must be at least 0")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed = {self.seed} must lie in [0, 2**32)")

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
