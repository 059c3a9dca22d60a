"""The training loop, as a generator: the caller owns progress bars, logs and plots."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from flowsteer.training.checkpoints import latest_checkpoint, load_checkpoint, save_checkpoint
from flowsteer.training.config import TrainingConfig
from flowsteer.training.ema import ExponentialMovingAverage

# step, micro-step -> losses; each is backpropagated before the next is computed
Losses = Callable[[int, int], Iterable[Tensor]]


class TrainingDiverged(ValueError):
    """The loss is not finite; the last good checkpoint is kept."""


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


def train(
    model: nn.Module,
    losses: Losses,
    config: TrainingConfig,
    accelerator: Accelerator,
    report_every: int = 1,
) -> Iterator[StepReport]:
    """Train `model` on `losses`; on exit its parameters hold the averages (EMA).

    Args:
        model: only parameters with `requires_grad` are trained, averaged and saved.
        losses: called with (step, micro-step); a pure function of these two and the parameters, so
            that a resumed run repeats the uninterrupted one. Their sum is the sample mean.
        config: length, optimiser, checkpoints.
        accelerator: device, precision and processes.
        report_every: steps between reports; reading a loss waits for the device.

    Yields:
        StepReport every `report_every` steps and after the last.

    Raises:
        TrainingDiverged: at a loss that is not finite; nothing is written from then on.
    """
    run = _Run(model, config, accelerator)
    step, start = run.resume(), time.monotonic()
    spent, since, total = run.spent, step, torch.zeros((), device=accelerator.device)
    tick = start
    while (progress := run.progress(step, spent)) < 1:
        rate = config.learning_rate_at(step, progress)
        loss, grad_norm = run.step(step, losses, rate)
        step, total = step + 1, total + loss
        run.ema.update(step)
        spent = run.spent + time.monotonic() - start
        done = run.progress(step, spent)
        saving = step % config.checkpointing_steps == 0 or done >= 1
        if saving or step % report_every == 0:
            mean = float(total) / (step - since)
            if not (math.isfinite(mean) and math.isfinite(grad_norm)):
                raise TrainingDiverged(
                    f"loss = {mean} at step {step} is not finite; lower --learning_rate"
                    f" ({config.learning_rate:g}) and resume from the last checkpoint"
                )
            now = time.monotonic()
            pace = (step - since) * run.samples_per_step / max(now - tick, 1e-9)
            left = spent * (1 - done) / done
            yield StepReport(step, mean, float(grad_norm), rate, pace, left)
            since, tick, total = step, now, torch.zeros_like(total)
        if saving:
            run.save(step, spent)
    run.finish()


class _Run:
    """What a run carries from step to step: parameters, optimiser, averages, time spent."""

    def __init__(self, model: nn.Module, config: TrainingConfig, accelerator: Accelerator):
        self.config, self.accelerator = config, accelerator
        self.parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        if not self.parameters:
            raise ValueError("the model has no parameter with requires_grad; nothing to train")
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(),
            lr=config.learning_rate,
            betas=(config.adam_beta1, config.adam_beta2),
            weight_decay=config.adam_weight_decay,
            fused=accelerator.device.type == "cuda",
        )
        self.ema = ExponentialMovingAverage(self.parameters, config.ema_decay)
        self.spent = 0.0
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

    def step(self, step: int, losses: Losses, rate: float) -> tuple[Tensor, Tensor]:
        """One optimiser step: mean loss and gradient norm, as tensors (no device wait)."""
        micro_steps = self.config.gradient_accumulation_steps
        total = torch.zeros((), device=self.accelerator.device)
        for micro_step in range(micro_steps):
            for loss in losses(step, micro_step):
                (loss / micro_steps).backward()
                total += loss.detach().float() / micro_steps
        self._average_gradients()
        norm = nn.utils.clip_grad_norm_(self.parameters.values(), self.config.max_grad_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        return total, norm

    def _average_gradients(self) -> None:
        """One all-reduce a step, however many losses were backpropagated."""
        if self.accelerator.num_processes == 1:
            return
        grads = [p.grad for p in self.parameters.values() if p.grad is not None]
        flat = torch.cat([grad.flatten() for grad in grads])
        flat = self.accelerator.reduce(flat, reduction="mean")
        for grad, mean in zip(grads, flat.split([g.numel() for g in grads]), strict=True):
            grad.copy_(mean.view_as(grad))

    def resume(self) -> int:
        """Load the checkpoint that the config names; the step to go on from."""
        wanted = self.config.resume_from_checkpoint
        if wanted is None:
            return 0
        folder = latest_checkpoint(self.config.output_dir) if wanted == "latest" else wanted
        if folder is None:
            return 0
        step, tensors, state = load_checkpoint(folder)
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(tensors["model"][name])
                self.ema.averages[name].copy_(tensors["ema"][name])
        self._load_optimizer(tensors["optimizer"], step)
        self.spent = state["seconds"]
        return step

    def save(self, step: int, spent: float) -> None:
        """Write a checkpoint from the first process."""
        if not self.accelerator.is_main_process:
            return
        tensors: dict[str, Mapping[str, Tensor]] = {
            "model": self.parameters,
            "ema": self.ema.averages,
            "optimizer": self._optimizer_tensors(),
        }
        limit = self.config.checkpoints_total_limit
        save_checkpoint(self.config.output_dir, step, tensors, {"seconds": spent}, limit)

    def finish(self) -> None:
        """Leave the averages in the model."""
        self.ema._write(self.ema.averages)

    def _optimizer_tensors(self) -> dict[str, Tensor]:
        return {
            f"{name}.{key}": self.optimizer.state[parameter][key]
            for name, parameter in self.parameters.items()
            for key in ("exp_avg", "exp_avg_sq")
            if parameter in self.optimizer.state
        }

    def _load_optimizer(self, tensors: Mapping[str, Tensor], step: int) -> None:
        device = self.accelerator.device
        for name, parameter in self.parameters.items():
            if f"{name}.exp_avg" in tensors:
                # fused AdamW keeps its counter on the parameter's device
                where = device if device.type == "cuda" else "cpu"
                counter = torch.tensor(float(step), device=where)
                self.optimizer.state[parameter] = {
                    "step": counter,
                    "exp_avg": tensors[f"{name}.exp_avg"].to(device),
                    "exp_avg_sq": tensors[f"{name}.exp_avg_sq"].to(device),
                }
