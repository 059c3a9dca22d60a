"""The training loop, as a generator: the caller owns progress bars, logs and plots."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from flowsteer.training.checkpoints import latest_checkpoint, load_checkpoint, save_checkpoint
from flowsteer.training.config import TrainingConfig
from flowsteer.training.ema import ExponentialMovingAverage
from flowsteer.training.player import Losses, Player, shapes


class TrainingDiverged(ValueError):
    """A loss is not finite; the last good checkpoint is kept."""


@dataclass(frozen=True)
class StepReport:
    """One optimiser step: its number from 1, the mean loss, pace and what is left."""

    step: int
    loss: float
    grad_norm: float
    learning_rate: float
    samples_per_second: float
    seconds_left: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    picture: Tensor | None = None  # (3, h, w) in [0, 1], where validation drew one


@dataclass(frozen=True)
class Rival:
    """The network that plays against the one in training: the critic.

    Args:
        model: as in `train`.
        losses: called after the model's own with the same numbers, before either is updated.
        learning_rate: its peak; it follows the model's schedule.
    """

    model: nn.Module
    losses: Losses
    learning_rate: float


@dataclass(frozen=True)
class Validation:
    """What is measured of the averaged model every so many steps.

    Args:
        measure: called while the averages are in the model; metrics and a picture or None.
        every: steps.
    """

    measure: Callable[[], tuple[Mapping[str, float], Tensor | None]]
    every: int


def train(
    model: nn.Module,
    losses: Losses,
    config: TrainingConfig,
    accelerator: Accelerator,
    report_every: int = 1,
    rival: Rival | None = None,
    metrics: Callable[[], Mapping[str, float]] = dict,
    validation: Validation | None = None,
) -> Iterator[StepReport]:
    """Train `model` on `losses`; on exit its parameters hold the averages (EMA).

    Args:
        model: only parameters with `requires_grad` are trained, averaged and saved.
        losses: called with (step, micro-step); a pure function of these two and the parameters, so
            that a resumed run repeats the uninterrupted one. Their sum is the sample mean.
        config: length, optimiser, checkpoints.
        accelerator: device, precision and processes.
        report_every: steps between reports; reading a loss waits for the device.
        rival: trained in the same steps, saved in the same checkpoints, not averaged.
        metrics: read for every report: means since it was last read.
        validation: measured by the first process.

    Yields:
        StepReport every `report_every` steps, after each validation and after the last.

    Raises:
        TrainingDiverged: at a loss that is not finite; nothing is written from then on.
        ValueError: if the checkpoint to resume from is damaged or another run's.
    """
    run = _Run(model, losses, config, accelerator, rival)
    step, start = run.resume(), time.monotonic()
    run.since, spent = step, run.spent
    while (progress := run.progress(step, spent)) < 1:
        pace = config.learning_rate_at(step, progress) / config.learning_rate
        run.step(step, pace)
        step += 1
        run.ema.update(step)
        spent = run.spent + time.monotonic() - start
        done = run.progress(step, spent)
        validating = validation is not None and (step % validation.every == 0 or done >= 1)
        saving = step % config.checkpointing_steps == 0 or done >= 1
        if saving or validating or step % report_every == 0:
            own = run.read(step)
            found, picture = run.validate(validation) if validating else ({}, None)
            yield StepReport(
                step,
                own.pop("loss"),
                own.pop("grad_norm"),
                config.learning_rate * pace,
                own.pop("samples_per_second"),
                spent * (1 - done) / done,
                own | dict(metrics()) | dict(found),
                picture,
            )
        if saving:
            run.save(step, spent)
    run.finish()


class _Run:
    """What a run carries from step to step: networks, averages, time spent."""

    def __init__(
        self,
        model: nn.Module,
        losses: Losses,
        config: TrainingConfig,
        accelerator: Accelerator,
        rival: Rival | None,
    ):
        self.config, self.accelerator = config, accelerator
        self.players = [Player(model, losses, config.learning_rate, config, accelerator)]
        if rival is not None:
            rate = rival.learning_rate
            self.players.append(
                Player(rival.model, rival.losses, rate, config, accelerator, "critic_")
            )
        self.ema = ExponentialMovingAverage(self.players[0].parameters, config.ema_decay)
        self.spent, self.since, self.tick = 0.0, 0, time.monotonic()
        self.totals = torch.zeros(len(self.players), device=accelerator.device)
        self.norms: list[Tensor] = []
        self.samples_per_step = (
            config.train_batch_size * config.gradient_accumulation_steps * accelerator.num_processes
        )

    def progress(self, step: int, seconds: float) -> float:
        """Progress on which all processes agree: clocks differ, so the first one's counts."""
        progress = self.config.progress(step, seconds)
        if self.accelerator.num_processes > 1 and self.config.max_train_seconds is not None:
            shared = torch.tensor(progress, device=self.accelerator.device, dtype=torch.float64)
            torch.distributed.broadcast(shared, src=0)
            progress = float(shared)
        return progress

    def step(self, step: int, pace: float) -> None:
        """One optimiser step of every network (no wait for the device)."""
        for micro_step in range(self.config.gradient_accumulation_steps):
            losses = [player.accumulate(step, micro_step) for player in self.players]
            self.totals += torch.stack(losses)
        self.norms = [player.update(pace) for player in self.players]

    def read(self, step: int) -> dict[str, float]:
        """Mean losses over all processes and samples/s since the last reading, gradient norms.

        Raises:
            TrainingDiverged: if one of them is not finite.
        """
        means = self.accelerator.reduce(self.totals, reduction="mean") / (step - self.since)
        now = time.monotonic()
        pace = (step - self.since) * self.samples_per_step / max(now - self.tick, 1e-9)
        values = {"samples_per_second": pace}
        for player, mean, norm in zip(self.players, means.tolist(), self.norms, strict=True):
            self._check_finite(step, f"{player.prefix}loss", mean)
            self._check_finite(step, f"{player.prefix}grad_norm", float(norm))
            values[f"{player.prefix}loss"] = mean
            values[f"{player.prefix}grad_norm"] = float(norm)
        self.since, self.tick = step, now
        self.totals = torch.zeros_like(self.totals)
        return values

    def _check_finite(self, step: int, name: str, value: float) -> None:
        if not math.isfinite(value):
            raise TrainingDiverged(
                f"{name} = {value} at step {step} is not finite; lower --learning_rate"
                f" ({self.config.learning_rate:g}) and resume from the last checkpoint"
            )

    @torch.no_grad()
    def validate(self, validation: Validation | None) -> tuple[Mapping[str, float], Tensor | None]:
        """Measure the averaged model."""
        if validation is None or not self.accelerator.is_main_process:
            return {}, None
        with self.ema.applied():
            return validation.measure()

    def resume(self) -> int:
        """Load the checkpoint that the config names; the step to go on from."""
        wanted = self.config.resume_from_checkpoint
        folder = latest_checkpoint(self.config.output_dir) if wanted == "latest" else wanted
        if folder is None:
            return 0
        step, tensors, state = load_checkpoint(folder)
        for player in self.players:
            player.load(tensors, step)
        if shapes(tensors.get("ema", {})) != shapes(self.ema.averages):
            raise ValueError(f"{folder} has no averages of this run's parameters; name another")
        for name, average in self.ema.averages.items():
            average.copy_(tensors["ema"][name])
        self.spent = state["seconds"]
        return step

    def save(self, step: int, spent: float) -> None:
        """Write a checkpoint from the first process."""
        if not self.accelerator.is_main_process:
            return
        tensors: dict[str, Mapping[str, Tensor]] = {"ema": self.ema.averages}
        for player in self.players:
            tensors |= player.tensors()
        state = {"seconds": spent, "samples": step * self.samples_per_step}
        limit = self.config.checkpoints_total_limit
        save_checkpoint(self.config.output_dir, step, tensors, state, limit)

    def finish(self) -> None:
        """Leave the averages in the model."""
        self.ema.write(self.ema.averages)
