"""Checkpoints: safetensors and JSON, written aside and renamed, with checksums."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

_NAME = re.compile(r"checkpoint-(\d+)")
_ASIDE = ".checkpoint-"


def save_checkpoint(
    output_dir: str | Path,
    step: int,
    tensors: Mapping[str, Mapping[str, Tensor]],
    state: Mapping[str, Any],
    total_limit: int | None = None,
) -> Path:
    """Write `output_dir/checkpoint-STEP` at once: it is there complete, or not at all.

    Args:
        output_dir: folder of the run, made if need be.
        step: optimiser steps done.
        tensors: file stem -> named tensors; one safetensors file each.
        state: anything JSON can hold.
        total_limit: keep only this many newest checkpoints.
    """
    output_dir = Path(output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    final = output_dir / f"checkpoint-{step}"
    for left_over in output_dir.glob(f"{_ASIDE}*"):  # of a run that was killed while it wrote
        shutil.rmtree(left_over)
    aside = Path(tempfile.mkdtemp(prefix=_ASIDE, dir=output_dir))
    try:
        for stem, named in tensors.items():
            contiguous = {name: tensor.detach().contiguous() for name, tensor in named.items()}
            save_file(contiguous, aside / f"{stem}.safetensors")
        sums = {path.name: _sha256(path) for path in sorted(aside.iterdir())}
        record = {"step": step, "sha256": sums, "state": dict(state)}
        (aside / "checkpoint.json").write_text(json.dumps(record, indent=1))
        if final.exists():
            shutil.rmtree(final)
        os.replace(aside, final)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    if total_limit is not None:
        for old in _checkpoints(output_dir)[:-total_limit]:
            shutil.rmtree(old)
    return final


def load_checkpoint(folder: str | Path) -> tuple[int, dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Read what `save_checkpoint` wrote: step, tensors by file stem, state.

    Raises:
        ValueError: if the folder is no checkpoint, or one of its files is missing or corrupted.
    """
    folder = Path(folder)
    record = _verified(folder)
    tensors = {Path(name).stem: load_file(folder / name) for name in record["sha256"]}
    return record["step"], tensors, record["state"]


def latest_checkpoint(output_dir: str | Path) -> Path | None:
    """The newest checkpoint whose checksums hold; damaged ones are passed over with a warning."""
    for folder in reversed(_checkpoints(Path(output_dir))):
        try:
            _verified(folder)
        except ValueError as error:
            warnings.warn(f"skipped a damaged checkpoint: {error}", stacklevel=2)
        else:
            return folder
    return None


def steps_of(folder: Path) -> int:
    """Optimiser steps done at a checkpoint, by its name."""
    return int(folder.name.rpartition("-")[2])


def _verified(folder: Path) -> dict[str, Any]:
    """A checkpoint's record, once every file is known to match its checksum."""
    try:
        record = json.loads((folder / "checkpoint.json").read_text())
        for name, expected in record["sha256"].items():
            if _sha256(folder / name) != expected:
                raise ValueError(f"{folder / name} does not match its checksum; use an older one")
        return {key: record[key] for key in ("step", "sha256", "state")}
    except (OSError, json.JSONDecodeError, KeyError) as error:
        raise ValueError(f"{folder} is no complete checkpoint ({error}); name another") from error


def _checkpoints(output_dir: Path) -> list[Path]:
    """Checkpoint folders, oldest first."""
    if not output_dir.is_dir():
        return []
    found = {path: _NAME.fullmatch(path.name) for path in output_dir.iterdir()}
    steps = {path: int(match[1]) for path, match in found.items() if match}
    return sorted(steps, key=steps.__getitem__)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
