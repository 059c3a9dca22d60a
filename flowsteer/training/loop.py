"""The training loop, as a generator: the caller owns progress bars, logs and plots."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from flowsteer.training.config import TrainingConfig
from flowsteer.training.interruption import Interrupted, put_off
from flowsteer.training.player import Losses
from flowsteer.training.results import Result
from flowsteer.training.run import Rival, Run, TrainingDiverged
from flowsteer.training.run_folder import RunFolder
from flowsteer.training.run_settings import RunSettings

__all__ = ["Rival", "StepReport", "TrainingDiverged", "Validation", "train"]


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
    since: int | None = None  # the loss is the mean of the steps after this one; None: of `step`


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
    settings: RunSettings | None = None,
    result: Result | None = None,
) -> Iterator[StepReport]:
    """Train `model` on `losses`; on exit its parameters hold the averages (EMA).

    The run has its folder to itself until the generator ends or is closed.

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
        settings: kept in the checkpoints and compared when one is resumed; None takes the config's.
        result: written at the end.

    Yields:
        StepReport every `report_every` steps, after each validation and after the last.

    Raises:
        TrainingDiverged: at a loss or weight that is not finite; nothing is written from then on.
        ValueError: if another run lies in the folder, or the checkpoint to resume from is damaged
            or another run's.
        Interrupted: at a signal that was put off (`caught_signals`), once the step is saved.
        OSError: if the disk is full.
    """
    settings = settings or RunSettings.of(config)
    settings = settings.adding(path={"num_processes": accelerator.num_processes})
    run = Run(model, losses, config, accelerator, rival, settings)
    place = RunFolder(config, settings, accelerator, result.folder if result else None)
    with put_off(), place:
        step, start = run.resume(place.start), time.monotonic()
        spent = run.spent
        while (progress := run.progress(step, spent)) < 1:
            pace = config.learning_rate_at(step, progress) / config.learning_rate
            run.step(step, pace)
            step += 1
            run.ema.update(step)
            spent = run.spent + time.monotonic() - start
            done = run.progress(step, spent)
            validating = validation is not None and (step % validation.every == 0 or done >= 1)
            saving = step % config.checkpointing_steps == 0 or done >= 1
            reporting = saving or validating or step % report_every == 0
            signal_number = run.signal(meeting=reporting)
            if reporting or signal_number:
                since, own = run.since, run.read(step)
                found, picture = _validate(run, validation) if validating else ({}, None)
                yield StepReport(
                    step,
                    own.pop("loss"),
                    own.pop("grad_norm"),
                    config.learning_rate * pace,
                    own.pop("samples_per_second"),
                    spent * (1 - done) / done,
                    own | dict(metrics()) | dict(found),
                    picture,
                    since,
                )
            if signal_number:
                _stop(run, step, spent, signal_number)
            if saving:
                run.save(step, spent)
        run.finish(step, result)
        if signal_number := run.signal(meeting=True):
            raise Interrupted(f"the run in {config.output_dir} is complete", signal_number)


def _stop(run: Run, step: int, spent: float, signal_number: int) -> None:
    """Save the steps that are done and end the run.

    Raises:
        Interrupted: saying where they are.
    """
    run.save(step, spent)
    again = run.config.resume_from_checkpoint == "latest"
    advice = "the same command goes on" if again else "go on with --resume_from_checkpoint latest"
    raise Interrupted(
        f"stopped after step {step}, saved in {run.config.output_dir}/checkpoint-{step}; {advice}",
        signal_number,
    )


@torch.no_grad()
def _validate(run: Run, validation: Validation | None) -> tuple[Mapping[str, float], Tensor | None]:
    """Measure the averaged model."""
    if validation is None or not run.accelerator.is_main_process:
        return {}, None
    with run.ema.applied():
        return validation.measure()
