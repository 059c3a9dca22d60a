"""Checkpoints: safetensors and JSON, written aside and renamed, with checksums."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
import uuid
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from flowsteer.files import write_text
from flowsteer.untrusted import open_regular, read_json, read_tensors
from flowsteer.validation import shorten

RECORD_FILE = "checkpoint.json"
ASIDE = ".flowsteer-"
"""Prefix of folders that are being written or removed."""
MOST_RECORD_BYTES = 16 * 2**20
MOST_FILE_BYTES = 2**40
LONGEST_SECONDS = 1e12
_NAME = re.compile(r"checkpoint-(\d{1,15})")
_FILE = re.compile(r"\w{1,64}\.safetensors")


@dataclass(frozen=True)
class Record:
    """What a checkpoint says of itself.

    Args:
        step: optimiser steps done.
        sha256: file name -> checksum.
        state: what the run keeps beside its tensors.
        run: which run wrote it; the same for all that go on from each other in one folder.
        order: when, counted in that folder: a run that went back to an older checkpoint writes
            lower steps later.
        settings: of the run; None in checkpoints of an older version.
        spoilt: the loss right after it was not finite.
    """

    step: int
    sha256: Mapping[str, str]
    state: Mapping[str, Any]
    run: str = ""
    order: int = 0
    settings: Any = None
    spoilt: bool = False

    def write(self, folder: Path) -> None:
        """As `checkpoint.json`, in one move."""
        write_text(folder / RECORD_FILE, json.dumps(vars(self), indent=1))


def save_checkpoint(
    output_dir: str | Path,
    step: int,
    tensors: Mapping[str, Mapping[str, Tensor]],
    state: Mapping[str, Any],
    total_limit: int | None = None,
    run: str = "",
    settings: Any = None,
) -> Path:
    """Write `output_dir/checkpoint-STEP` at once: it is there complete, or not at all.

    Args:
        output_dir: folder of the run, made if need be.
        step: optimiser steps done.
        tensors: file stem -> named tensors; one safetensors file each.
        state: anything JSON can hold.
        total_limit: keep only this many of the run's checkpoints. Those ahead of `step`, which a
            run left that went back, go first; then the ones written first.
        run: which one this is; see `Record`.
        settings: of the run, as JSON can hold them.

    Raises:
        OSError: if it could not be written; the others are as they were.
        ValueError: if something else than a checkpoint has its name.
    """
    output_dir = Path(output_dir)
    final = output_dir / f"checkpoint-{step}"
    aside = None
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        check_owned(final)
        order = 1 + max((record.order for _, record in _readable(output_dir)), default=0)
        aside = Path(tempfile.mkdtemp(prefix=ASIDE, dir=output_dir))
        for stem, named in tensors.items():
            contiguous = {name: tensor.detach().contiguous() for name, tensor in named.items()}
            save_file(contiguous, aside / f"{stem}.safetensors")
        sums = {path.name: _sha256(path) for path in sorted(aside.iterdir())}
        Record(step, sums, dict(state), run, order, settings).write(aside)
        replace_folder(aside, final)
    except (OSError, SafetensorError) as error:
        kept = [folder.name for folder, record in _readable(output_dir) if not record.spoilt]
        advice = f"go on with --resume_from_checkpoint {kept[-1]}" if kept else "start again"
        raise OSError(f"{final} could not be written ({error}); make room and {advice}") from error
    finally:
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)
    if total_limit is not None:
        _prune(output_dir, step, total_limit, run)
    return final


def load_checkpoint(folder: str | Path) -> tuple[int, dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Read what `save_checkpoint` wrote: step, tensors by file stem, state.

    Raises:
        ValueError: if the folder is no checkpoint, one of its files is missing or corrupted, or
            holds a number that is not finite.
    """
    folder = Path(folder)
    record = verified(folder)
    tensors = {Path(name).stem: read_tensors(folder / name) for name in record.sha256}
    seconds = record.state.get("seconds", 0.0)
    number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not number or not 0 <= seconds <= LONGEST_SECONDS:
        raise ValueError(
            f"{folder / RECORD_FILE}: seconds = {shorten(seconds)} must lie in [0, 1e12]"
        )
    return record.step, tensors, dict(record.state)


def latest_checkpoint(output_dir: str | Path) -> Path | None:
    """The checkpoint that was written last; damaged and spoilt ones are passed over, and named."""
    for folder in reversed(checkpoints(output_dir)):
        try:
            record = verified(folder)
        except ValueError as error:
            warnings.warn(f"skipped a damaged checkpoint: {error}", stacklevel=2)
            continue
        if not record.spoilt:
            return folder
        warnings.warn(f"skipped {folder}: the loss right after it was not finite", stacklevel=2)
    return None


def checkpoints(output_dir: str | Path) -> list[Path]:
    """Folders with a checkpoint's name, whatever is in them, those written last at the end."""
    output_dir = Path(output_dir)
    if not output_dir.is_dir():
        return []
    found = []
    for path in output_dir.iterdir():
        if _NAME.fullmatch(path.name):
            try:
                order = read_record(path).order
            except ValueError:
                order = 0
            found.append((order, steps_of(path), path))
    return [path for _, _, path in sorted(found)]


def steps_of(folder: Path) -> int:
    """Optimiser steps done at a checkpoint, by its name."""
    return int(folder.name.rpartition("-")[2])


def read_record(folder: Path) -> Record:
    """What a checkpoint says of itself; its other files are not looked at.

    Raises:
        ValueError: if it is no checkpoint's record.
    """
    try:
        values = read_json(folder / RECORD_FILE, "a checkpoint's record", MOST_RECORD_BYTES)
        record = Record(**{key: value for key, value in values.items() if key in _FIELDS})
        _check_record(record, folder)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder} is no complete checkpoint ({error}); name another") from error
    return record


_FIELDS = frozenset(Record.__dataclass_fields__)


def _check_record(record: Record, folder: Path) -> None:
    named = _NAME.fullmatch(folder.name)
    if not _is_count(record.step) or not _is_count(record.order):
        raise ValueError(
            f"step = {shorten(record.step)}, order = {shorten(record.order)} must be counts"
        )
    if named and int(named[1]) != record.step:
        raise ValueError(f"step = {record.step} is not the {named[1]} of the folder's name")
    if not isinstance(record.state, dict) or not isinstance(record.sha256, dict):
        raise ValueError("state and sha256 must be objects")
    if not isinstance(record.run, str) or not isinstance(record.spoilt, bool):
        raise ValueError("run must be text, and spoilt true or false")
    if strange := [name for name in record.sha256 if not _FILE.fullmatch(name)]:
        raise ValueError(f"{shorten(strange[0])} is no file of a checkpoint")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**15


def verified(folder: Path) -> Record:
    """A checkpoint's record, once every file is known to match its checksum.

    Raises:
        ValueError: naming the file that does not.
    """
    record = read_record(folder)
    for name, expected in record.sha256.items():
        file = folder / name
        try:
            found = _sha256(file)
        except ValueError as error:
            raise ValueError(f"{folder} is no complete checkpoint ({error})") from error
        if found != expected:
            raise ValueError(f"{file} does not match its checksum; use an older one")
    return record


def mark_spoilt(folder: Path) -> None:
    """Have `latest_checkpoint` pass it over from now on."""
    record = read_record(folder)
    Record(**vars(record) | {"spoilt": True}).write(folder)


def check_owned(folder: Path) -> None:
    """Make sure that what has a checkpoint's name, if anything has, may be replaced.

    Raises:
        ValueError: if it is a file, a link, or a folder that holds something else.
    """
    if not os.path.lexists(folder):
        return
    try:
        if folder.is_symlink() or not folder.is_dir():
            raise ValueError("it is no folder")
        names = {path.name for path in folder.iterdir()}
        if names and RECORD_FILE not in names:
            raise ValueError(f"it has no {RECORD_FILE}")
        if strange := [name for name in names - {RECORD_FILE} if not _FILE.fullmatch(name)]:
            raise ValueError(f"it holds {min(strange)}")
    except ValueError as error:
        raise ValueError(
            f"{folder} is in the way and no checkpoint of flowsteer's ({error}); move it away, or"
            " choose another --output_dir"
        ) from error


def replace_folder(aside: Path, target: Path) -> None:
    """Move a folder to a place whose old folder is removed, never half of it at a time."""
    if target.exists():
        remove_folder(target, then=aside)
    else:
        os.replace(aside, target)


def remove_folder(folder: Path, then: Path | None = None) -> None:
    """Remove a folder, which has another name while it goes; `then` takes its place at once."""
    old = folder.parent / f"{ASIDE}{uuid.uuid4().hex}"
    os.replace(folder, old)
    if then is not None:
        os.replace(then, folder)
    shutil.rmtree(old)


def remove_asides(output_dir: Path) -> None:
    """Remove what a run that was killed left half-written; only for who holds the lock."""
    for left_over in output_dir.glob(f"{ASIDE}*"):
        if left_over.is_dir() and not left_over.is_symlink():
            shutil.rmtree(left_over)


def _prune(output_dir: Path, step: int, limit: int, run: str) -> None:
    own = [(folder, record) for folder, record in _readable(output_dir) if record.run == run]
    own.sort(key=lambda pair: (pair[1].step <= step, pair[1].order, pair[1].step))
    for folder, _ in own[:-limit]:
        remove_folder(folder)


def _readable(output_dir: Path) -> list[tuple[Path, Record]]:
    """Checkpoints whose record can be read, those written last at the end."""
    found = []
    for folder in checkpoints(output_dir):
        try:
            found.append((folder, read_record(folder)))
        except ValueError:  # not ours to judge: `latest_checkpoint` names it
            continue
    return found


def _sha256(path: Path) -> str:
    with open_regular(path, "a file of a checkpoint", MOST_FILE_BYTES) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
