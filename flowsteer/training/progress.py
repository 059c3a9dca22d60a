"""Watching a run: a progress bar on the terminal and, if asked for, tensorboard."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from accelerate import PartialState
from tqdm import tqdm

from flowsteer.training.config import TrainingConfig
from flowsteer.training.interruption import caught_signals
from flowsteer.training.log import TrainingLog, since, to_row
from flowsteer.training.loop import StepReport
from flowsteer.training.run_folder import EVENTS_FOLDER


def watch(
    reports: Iterable[StepReport], config: TrainingConfig, description: str
) -> Iterator[StepReport]:
    """Pass reports through, showing loss, samples/s and time left.

    One line says early how long the run will take at its pace, and which flags shorten it.
    Every report is a line of `config.output_dir/log.jsonl`. With `report_to="tensorboard"`
    scalars and pictures go to `config.output_dir/logs` too. Ctrl-C and SIGTERM end the run after
    the step in hand, once that is saved; a second one ends it at once.

    Raises:
        ValueError: if tensorboard is asked for and not installed.
        Interrupted: at Ctrl-C or SIGTERM, saying where the run is saved.
    """
    main = PartialState().is_main_process
    make_writer = _writer_class(config) if main else None
    writer, log, forecast = None, TrainingLog(config.output_dir), Forecast(config)
    bar = tqdm(
        total=config.max_train_steps,
        desc=description,
        unit="step",
        dynamic_ncols=True,
        disable=not main,
    )
    with bar, caught_signals():
        for report in reports:
            bar.update(report.step - bar.n)
            bar.set_postfix_str(
                f"loss {report.loss:.4f}, {report.samples_per_second:.0f} samples/s, "
                f"{clock(report.seconds_left)} left"
            )
            if main:
                log.add(report)
                if line := forecast(report):
                    tqdm.write(line, file=sys.stderr)
            if make_writer is not None:
                if writer is None:  # not before: a run that is refused writes nothing
                    folder = str(Path(config.output_dir) / EVENTS_FOLDER)
                    # what was drawn of steps that a resumed run takes anew is hidden
                    writer = make_writer(folder, purge_step=since(report) + 1)
                _write_events(writer, report)
            yield report


def _write_events(writer: Any, report: StepReport) -> None:
    """One report's scalars, and its picture if it has one, for tensorboard."""
    values = to_row(report)
    for name, value in values.items():
        if name != "step":
            writer.add_scalar(name, value, report.step)
    if report.picture is not None:
        writer.add_image("teacher above student", report.picture, report.step)
    writer.flush()  # readable at once, and after a run that is cut short


SHORT = 10.0
"""Seconds that nobody needs to be told of."""


class Forecast:
    """Says once how long a run will take: at its first report, or its second if it compiles.

    Args:
        config: of the run.
    """

    def __init__(self, config: TrainingConfig):
        self.flags = [
            f"--{name} (now {value:,})"
            for name in ("max_train_steps", "max_train_seconds", "train_batch_size")
            if (value := getattr(config, name)) is not None
        ]
        self._wait = int(config.compile)  # a first step that compiles foretells nothing

    def __call__(self, report: StepReport) -> str | None:
        """The line, or None if it has been said, or it is too soon or too late for it."""
        self._wait -= 1
        if self._wait != -1 or report.seconds_left < SHORT:
            return None
        *most, last = self.flags
        shorter = f"{', '.join(most)} or {last}" if most else last
        return f"flowsteer: about {duration(report.seconds_left)} left; shorten it with {shorter}"


def duration(seconds: float) -> str:
    """A time to plan by, of two digits at most: "40 s", "12 min", "24 h", "3 days"."""
    for unit, size in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def clock(seconds: float) -> str:
    """Whole seconds as h:mm:ss or mm:ss."""
    return tqdm.format_interval(seconds)


def _writer_class(config: TrainingConfig):
    if config.report_to == "none":
        return None
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError(
            'report_to = "tensorboard" needs tensorboard: pip install tensorboard'
        ) from error
    return SummaryWriter
