"""What a run carries from step to step: networks, averages, losses, time spent."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from flowsteer.training.checkpoints import (
    checkpoints,
    load_checkpoint,
    mark_spoilt,
    save_checkpoint,
    verified,
)
from flowsteer.training.config import TrainingConfig
from flowsteer.training.ema import ExponentialMovingAverage
from flowsteer.training.interruption import received
from flowsteer.training.player import Losses, Player, check_like, find_not_finite
from flowsteer.training.results import Result
from flowsteer.training.run_folder import Start
from flowsteer.training.run_settings import RunSettings

EXPLODED = 1e6
"""A loss that many times the first one (or 1, if that is less) comes from spoilt weights."""


class TrainingDiverged(ValueError):
    """A loss or a weight is not finite; the last good checkpoint is kept."""


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


class Run:
    """The players of a run, their averages and what was noted of their losses.

    Args:
        model: as in `train`, like the others.
        losses: of the model.
        config: of the run.
        accelerator: device and processes.
        rival: the critic, if there is one.
        settings: kept in every checkpoint.
    """

    def __init__(
        self,
        model: nn.Module,
        losses: Losses,
        config: TrainingConfig,
        accelerator: Accelerator,
        rival: Rival | None,
        settings: RunSettings,
    ):
        self.config, self.accelerator, self.settings = config, accelerator, settings
        self.players = [Player(model, losses, config.learning_rate, config, accelerator)]
        if rival is not None:
            rate = rival.learning_rate
            self.players.append(
                Player(rival.model, rival.losses, rate, config, accelerator, "critic_")
            )
        self.ema = ExponentialMovingAverage(self.players[0].parameters, config.ema_decay)
        self.spent, self.since, self.tick = 0.0, 0, time.monotonic()
        self.name, self.saved = "", 0
        self.rows: list[Tensor] = []
        self._first: list[float] | None = None
        self._spoilt_at: int | None = None
        self._written: list[Path] = []
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
        total = torch.zeros(len(self.players), device=self.accelerator.device)
        for micro_step in range(self.config.gradient_accumulation_steps):
            total += torch.stack([player.accumulate(step, micro_step) for player in self.players])
        norms = torch.stack([player.update(pace) for player in self.players])
        self.rows.append(torch.cat([total, norms.float()]))

    def signal(self, meeting: bool) -> int | None:
        """The signal that asks the run to stop.

        Args:
            meeting: whether all processes are here; several of them stop only where they meet.
        """
        own = received()
        if self.accelerator.num_processes == 1:
            return own
        if not meeting:
            return None
        shared = torch.tensor(own or 0, device=self.accelerator.device)
        torch.distributed.all_reduce(shared, torch.distributed.ReduceOp.MAX)
        return int(shared) or None

    def read(self, step: int) -> dict[str, float]:
        """Mean losses over all processes and samples/s since the last reading, gradient norms.

        Raises:
            TrainingDiverged: if one of them is not finite.
        """
        count = len(self.players)
        rows = self.accelerator.reduce(torch.stack(self.rows), reduction="mean")
        self._judge(rows.tolist())
        now = time.monotonic()
        pace = (step - self.since) * self.samples_per_step / max(now - self.tick, 1e-9)
        values = {"samples_per_second": pace}
        means, norms = rows[:, :count].mean(0).tolist(), rows[-1, count:].tolist()
        for player, mean, norm in zip(self.players, means, norms, strict=True):
            values |= {f"{player.prefix}loss": mean, f"{player.prefix}grad_norm": norm}
        for name, value in values.items():
            if not math.isfinite(value):
                self.diverge(f"{name} = {value} at step {step} is not finite", step)
        self.since, self.tick, self.rows = step, now, []
        return values

    def _judge(self, rows: list[list[float]]) -> None:
        """Note the first step whose losses or gradients say that the weights were spoilt."""
        count = len(self.players)
        self._first = self._first or [max(1.0, abs(loss)) for loss in rows[0][:count]]
        limits = [EXPLODED * first for first in self._first] + [math.inf] * count
        for step, row in enumerate(rows, self.since + 1):
            # what is not a number is not below its limit either
            if not all(abs(value) < limit for value, limit in zip(row, limits, strict=True)):
                self._spoilt_at = self._spoilt_at or step

    def diverge(self, what: str, step: int) -> None:
        """End the run, and keep `latest` from what is spoilt.

        Raises:
            TrainingDiverged: always.
        """
        # loss and gradient of step n are of the weights after n - 1 steps
        last_good = (self._spoilt_at or step) - 2
        advice = "start again in another --output_dir: no checkpoint is from before that"
        for folder in reversed(checkpoints(self.config.output_dir)):
            try:
                record = verified(folder)
                if record.step <= last_good and not record.spoilt:
                    load_checkpoint(folder)
                    advice = f"go on with --resume_from_checkpoint {folder.name}"
                    break
                if folder in self._written and self.accelerator.is_main_process:
                    mark_spoilt(folder)
            except ValueError:  # damaged: nothing to advise
                continue
        raise TrainingDiverged(
            f"{what}; lower --learning_rate ({self.config.learning_rate:g}) and {advice}"
        )

    @torch.no_grad()
    def resume(self, start: Start) -> int:
        """Load the checkpoint to go on from; the step it is of.

        Raises:
            ValueError: if it is damaged, or holds another network.
        """
        self.name = start.run
        if start.checkpoint is None:
            return 0
        step, tensors, state = load_checkpoint(start.checkpoint)
        for player in self.players:
            player.load(tensors, step, start.checkpoint)
        averages = tensors.get("ema", {})
        check_like(averages, self.ema.averages, start.checkpoint / "ema.safetensors")
        for name, average in self.ema.averages.items():
            average.copy_(averages[name])
        if "seconds" not in state:
            raise ValueError(f"{start.checkpoint}/checkpoint.json says no seconds; name another")
        self.spent, self.since = state["seconds"], step
        if start.checkpoint.resolve().parent == Path(self.config.output_dir).resolve():
            self.saved = step
        return step

    def save(self, step: int, spent: float) -> None:
        """Write a checkpoint from the first process, unless this step's is there already.

        Raises:
            TrainingDiverged: if a number in it is not finite.
            OSError: if it cannot be written.
        """
        if step == self.saved:
            return
        tensors = self._tensors(step)
        if self._spoilt_at is not None:
            self.diverge(f"loss at step {self._spoilt_at} is far beyond the first", step)
        if self.accelerator.is_main_process:
            state = {"seconds": spent, "samples": step * self.samples_per_step}
            folder = save_checkpoint(
                self.config.output_dir,
                step,
                tensors,
                state,
                self.config.checkpoints_total_limit,
                self.name,
                self.settings.to_json(),
            )
            self._written.append(folder)
        self.saved = step

    def _tensors(self, step: int) -> dict[str, Mapping[str, Tensor]]:
        """All that a checkpoint holds, by file stem, once it is known to be finite."""
        tensors: dict[str, Mapping[str, Tensor]] = {"ema": self.ema.averages}
        for player in self.players:
            tensors |= player.tensors()
        for stem, named in tensors.items():
            if name := find_not_finite(named):
                # weights are spoilt by the step just done, so those before it may be good
                self.diverge(f"{stem} {name} after step {step} is not finite", step + 1)
        return tensors

    def finish(self, step: int, result: Result | None) -> None:
        """Leave the averages in the model, and write the result."""
        self._tensors(step)
        self.ema.write(self.ema.averages)
        if result is not None and self.accelerator.is_main_process:
            result.save(Path(self.config.output_dir), step)
