"""A run's folder: whose it is, what may start or go on in it, and from which checkpoint."""

from __future__ import annotations

import os
import uuid
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from flowsteer.training.checkpoints import (
    RECORD_FILE,
    Record,
    check_owned,
    checkpoints,
    latest_checkpoint,
    read_record,
    remove_asides,
    verified,
)
from flowsteer.training.config import TrainingConfig
from flowsteer.training.folder_lock import LOCK_FILE, FolderLock
from flowsteer.training.results import ResultFolder
from flowsteer.training.run_settings import RunSettings
from flowsteer.validation import shorten

LOG_FILE = "log.jsonl"
EVENTS_FOLDER = "logs"


class FreshStart(UserWarning):
    """There was nothing to resume from, so the run starts at its first step."""


@dataclass(frozen=True)
class Start:
    """Where a run begins.

    Args:
        run: its name in its checkpoints.
        checkpoint: to go on from; None is the very beginning.
    """

    run: str
    checkpoint: Path | None = None


def check_run(config: TrainingConfig, result: ResultFolder) -> None:
    """Refuse what `RunFolder` would refuse, as far as the flags tell, before a model is loaded.

    Raises:
        ValueError: as `RunFolder`.
    """
    if int(os.environ.get("RANK", "0")) > 0:  # the first process refuses for all
        return
    folder = Path(config.output_dir)
    if (folder / LOCK_FILE).exists():
        lock = FolderLock(folder)
        lock.acquire()
        lock.release()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # said when the run starts
        start = find_start(config, result)
    if start.checkpoint is not None:
        record = read_record(start.checkpoint)
        RunSettings.of(config).check_function(record.settings, str(start.checkpoint))


def find_start(config: TrainingConfig, result: ResultFolder | None) -> Start:
    """Where a run of this config begins.

    Raises:
        ValueError: if another run lies in the folder, something in it is nobody's, or there is no
            such checkpoint.
    """
    folder, wanted = Path(config.output_dir), config.resume_from_checkpoint
    checkpoint = find_checkpoint(folder, wanted)
    if checkpoint is None:
        _check_free(folder, result, resuming=wanted is not None)
        return Start(uuid.uuid4().hex[:12])
    record = read_record(checkpoint)
    most = config.max_train_steps
    if most is not None and record.step > most:
        raise ValueError(
            f"{checkpoint} is of step {record.step}, past max_train_steps = {most}: raise it, or"
            " resume from an older checkpoint"
        )
    if checkpoint.resolve().parent != folder.resolve():
        _check_free(folder, result, resuming=False)
        return Start(uuid.uuid4().hex[:12], checkpoint)
    for other in checkpoints(folder):
        check_owned(other)
    if result is not None:
        result.check(folder)
    return Start(record.run, checkpoint)


def find_checkpoint(output_dir: Path, wanted: str | None) -> Path | None:
    """The checkpoint that `--resume_from_checkpoint` names.

    Args:
        output_dir: of the run.
        wanted: "latest", a name in that folder such as "checkpoint-500", or a path.

    Returns:
        None for None, and for "latest" where there is no checkpoint yet.

    Raises:
        ValueError: if there is no such checkpoint, or "latest" could be of two runs.
    """
    if wanted is None:
        return None
    there = checkpoints(output_dir)
    names = ", ".join(path.name for path in there[-5:]) or "none"
    if wanted == "latest":
        if not there:
            return None
        found = latest_checkpoint(output_dir)
        if found is None:
            verified(there[-1])  # says what is wrong with it, if it is not spoilt
            raise ValueError(
                f"no checkpoint in {output_dir} is good ({names}): start again in another"
                " --output_dir"
            )
        if len({record.run for record in _records(there)}) > 1:
            raise ValueError(
                f"{output_dir} holds checkpoints of several runs ({names}), so that latest could"
                " mean any; name one"
            )
        return found
    folder, name = Path(wanted).expanduser(), wanted.rstrip("/" + os.sep)
    if os.sep not in name and os.path.isdir(output_dir / name):
        folder = output_dir / name
    if not wanted or not os.path.isfile(folder / RECORD_FILE):  # unlike Path's, of any length
        is_folder = wanted and os.path.isdir(folder)
        inside = [path.name for path in checkpoints(folder)] if is_folder else []
        hint = f"name one in it, such as {folder / inside[-1]}" if inside else f"there are: {names}"
        raise ValueError(
            f"resume_from_checkpoint = {shorten(wanted, 200)} is no complete checkpoint; give"
            f" latest, a path, or a name in {output_dir} ({hint})"
        )
    return folder


def _records(folders: list[Path]) -> list[Record]:
    found = []
    for folder in folders:
        try:
            found.append(read_record(folder))
        except ValueError:  # latest_checkpoint has named it
            continue
    return found


def _check_free(folder: Path, result: ResultFolder | None, resuming: bool) -> None:
    """Refuse to start where a run lies already.

    Args:
        folder: of the new run.
        result: its result's.
        resuming: "latest" was asked for: the log of a run that came to no checkpoint may go.
    """
    found = [path.name for path in checkpoints(folder)[-1:]]
    if result is not None and result.exists(folder):
        result.check(folder)
        found.append(result.name)
    if not resuming:
        found += [name for name in (LOG_FILE, EVENTS_FOLDER) if os.path.lexists(folder / name)]
    if found:
        ways = "choose another --output_dir"
        if checkpoints(folder):
            ways = f"go on with --resume_from_checkpoint latest, or {ways}"
        raise ValueError(f"{folder} holds a run already ({', '.join(found)}): {ways}")


class RunFolder:
    """The folder of a run, locked for as long as the context lasts.

    Args:
        config: of the run.
        settings: its, to be held against those of a checkpoint.
        accelerator: only the first process locks and looks; the others do as it says.
        result: what the run leaves.

    Raises:
        ValueError: on entering, if the run may not start here; nothing is left behind.
    """

    def __init__(
        self,
        config: TrainingConfig,
        settings: RunSettings,
        accelerator: Accelerator,
        result: ResultFolder | None = None,
    ):
        self.config, self.settings, self.accelerator = config, settings, accelerator
        self.result, self.path = result, Path(config.output_dir)
        self.start = Start("")
        self._lock: FolderLock | None = None
        self._made: list[Path] = []

    def __enter__(self) -> RunFolder:
        problem: str | None = None
        if self.accelerator.is_main_process:
            try:
                self._open()
            except ValueError as error:
                problem = str(error)
                self.__exit__()
        if self.accelerator.num_processes > 1:
            shared: list[Any] = [problem, self.start]
            broadcast_object_list(shared)
            problem, self.start = shared
        if problem is not None:
            raise ValueError(problem)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._lock is not None:
            self._lock.release()
        for folder in reversed(self._made):  # of a run that wrote nothing
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        self._made = []

    def _open(self) -> None:
        self._made = [
            path for path in reversed((self.path, *self.path.parents)) if not path.exists()
        ]
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = FolderLock(self.path)
            self._lock.acquire()
        except OSError as error:
            raise ValueError(
                f"output_dir = {str(self.path)!r} cannot be written: {error.strerror}"
            ) from error
        self.start = find_start(self.config, self.result)
        if self.start.checkpoint is None:
            if self.config.resume_from_checkpoint is not None:
                message = f"{self.path} has no checkpoint yet: starting at the first step"
                warnings.warn(message, FreshStart, stacklevel=2)
        else:
            self._compare(self.start.checkpoint)
        remove_asides(self.path)

    def _compare(self, checkpoint: Path) -> None:
        saved = read_record(checkpoint).settings
        self.settings.check_function(saved, str(checkpoint))
        self.settings.warn_of_path(saved, str(checkpoint))
        newest = checkpoints(self.path)[-1:]
        inside = checkpoint.resolve().parent == self.path.resolve()
        if inside and newest and newest[0].name != checkpoint.name:
            warnings.warn(
                f"going back to {checkpoint.name}: the first new checkpoint is the latest from"
                f" then on, no longer {newest[0].name}",
                stacklevel=2,
            )
