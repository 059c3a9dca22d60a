"""Students: folders that describe themselves in `flowsteer.json`.

A folder holds either `pytorch_lora_weights.safetensors` (a LoRA) or `transformer/` (a full
network). Bundled students are named, all others are given by their path, or by the folder of the
run that taught them, which has it in `student/`.
"""

from __future__ import annotations

import dataclasses
import json
import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from flowsteer.flow.windows import TimeWindows
from flowsteer.untrusted import name_of, read_json
from flowsteer.validation import (
    MAX_GUIDANCE_SCALE,
    MAX_STEPS,
    check_number,
    check_path,
    check_whole_number,
    shorten,
)

INFO_FILE = "flowsteer.json"
LORA_FILE = "pytorch_lora_weights.safetensors"
RUN_STUDENT = "student"
"""Subfolder of a run's folder that holds what it taught."""
MOST_SHIFT = 1000.0
MOST_RANK = 65_536  # no layer is wider
MOST_ALPHA = 1e6
MOST_TRAINING_STEPS = 10**9
BUNDLED_STUDENTS = Path(__file__).parent / "emoji" / "students"


@dataclass(frozen=True)
class StudentInfo:
    """What a student is and how it was taught; the content of `flowsteer.json`.

    Args:
        method: the distillation method's name.
        teacher: name, folder or hub id of the teacher.
        edges: the window edges it was taught on, 1 = e_0 > ... > e_K = 0, after the shift.
        shift: the scheduler's shift.
        guidance_range: lowest and highest guidance scale of the teacher while teaching.
        lora_rank: rank of the LoRA; None for a full transformer.
        lora_alpha: alpha of the LoRA.
        steps: optimiser steps taken.
        settings: further flags of `flowsteer distill` that shaped it.
        versions: package name to version.

    Raises:
        ValueError: if the edges are no descending cut of [0, 1], or another value is of the wrong
            type or out of range.
    """

    method: str
    teacher: str
    edges: tuple[float, ...]
    shift: float
    guidance_range: tuple[float, float] | None = None
    lora_rank: int | None = None
    lora_alpha: float | None = None
    steps: int = 0
    settings: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        put = partial(object.__setattr__, self)
        put("edges", _numbers("edges", self.edges, 0.0, 1.0, 2, MAX_STEPS + 1))
        TimeWindows(self.edges)
        put("shift", check_number("shift", self.shift, 1e-3, MOST_SHIFT))
        if self.guidance_range is not None:
            most = MAX_GUIDANCE_SCALE
            scales = _numbers("guidance_range", self.guidance_range, 1.0, most, 2, 2)
            if scales[0] > scales[1]:
                raise ValueError(f"guidance_range = {scales} must rise, lowest scale first")
            put("guidance_range", scales)
        if self.lora_rank is not None:
            check_whole_number("lora_rank", self.lora_rank, 1, MOST_RANK)
        if self.lora_alpha is not None:
            check_number("lora_alpha", self.lora_alpha, 1e-6, MOST_ALPHA)
        check_whole_number("steps", self.steps, 0, MOST_TRAINING_STEPS)
        for name in ("method", "teacher"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"{name} = {shorten(getattr(self, name))} must be text")
        for name in ("settings", "versions"):
            _check_names(name, getattr(self, name))
        if wrong := [v for v in self.versions.values() if not isinstance(v, str)]:
            raise ValueError(f"versions has {shorten(wrong[0])}, which must be text")

    @property
    def num_inference_steps(self) -> int:
        """The fewest steps that visit every edge: one a window."""
        return len(self.edges) - 1

    def fits(self, grid: Iterable[float]) -> bool:
        """Whether an inference grid (N + 1,) visits every edge."""
        return TimeWindows(self.edges).contained_in(grid)

    def check_grid(self, grid: Iterable[float]) -> None:
        """Make sure that an inference grid visits every edge.

        Args:
            grid: sigmas (N + 1,), from 1 down to 0.

        Raises:
            ValueError: if an edge is missing; naming both grids.
        """
        TimeWindows(self.edges).check_grid(grid)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write `flowsteer.json` into an existing folder, in one move."""
        target = Path(folder) / INFO_FILE
        aside = target.with_name(f".{INFO_FILE}.{os.getpid()}")
        aside.write_text(json.dumps(dataclasses.asdict(self), indent=2) + "\n", encoding="utf-8")
        os.replace(aside, target)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> StudentInfo:
        """Read `flowsteer.json`; fields that this version does not know give a warning.

        Raises:
            ValueError: if the file is missing, is no JSON object, lacks a field, or a value in it
                is wrong; naming the file.
        """
        path = Path(folder) / INFO_FILE
        if not os.path.lexists(path):
            raise ValueError(f"{os.fspath(folder)!r} is no student: it has no {INFO_FILE}")
        values = read_json(path, f"a student's {INFO_FILE}")
        where = name_of(path)
        if not isinstance(values, dict):
            raise ValueError(f"{where} must hold a JSON object, as flowsteer distill writes it")
        known = {item.name: item for item in dataclasses.fields(cls)}
        needed = (name for name, item in known.items() if _has_no_default(item))
        if lacking := [name for name in needed if name not in values]:
            raise ValueError(f"{where} is incomplete: it lacks {', '.join(lacking)}")
        if unknown := sorted(values.keys() - known):
            warnings.warn(
                f"{where} has {len(unknown)} fields that this flowsteer does not know, which are"
                f" left aside: {shorten(', '.join(unknown))}",
                stacklevel=2,
            )
        try:
            return cls(**{name: value for name, value in values.items() if name in known})
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error


def _has_no_default(item: dataclasses.Field[Any]) -> bool:
    missing = dataclasses.MISSING
    return item.default is missing and item.default_factory is missing


def _numbers(
    name: str, values: Any, low: float, high: float, fewest: int, most: int
) -> tuple[float, ...]:
    """A list of numbers, its length checked before anything else."""
    if not isinstance(values, (list, tuple)) or not fewest <= len(values) <= most:
        length = f", not {len(values):,}" if isinstance(values, (list, tuple)) else ""
        count = f"{fewest}" if fewest == most else f"{fewest} to {most:,}"
        raise ValueError(f"{name} = {shorten(values)} must be a list of {count} numbers{length}")
    return tuple(
        check_number(f"{name}[{place}]", value, low, high) for place, value in enumerate(values)
    )


def _check_names(name: str, values: Any) -> None:
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ValueError(f"{name} = {shorten(values)} must be an object of named values")


@dataclass(frozen=True)
class Student:
    """A student found on disk.

    Args:
        name: what the user called it, a bundled name or a path.
        folder: where it lies.
        info: what it says of itself.
    """

    name: str
    folder: Path
    info: StudentInfo

    @property
    def is_lora(self) -> bool:
        """Whether it is a LoRA, not a full transformer."""
        return (self.folder / LORA_FILE).is_file()


def bundled_students() -> tuple[str, ...]:
    """Names of the students in the package, sorted."""
    return tuple(sorted(path.parent.name for path in BUNDLED_STUDENTS.glob(f"*/{INFO_FILE}")))


def student_title(name: str | os.PathLike[str]) -> str:
    """What people call a student: the last part of its path.

    Every run calls its own `student`, so such a one takes the name of its run's folder.
    """
    path = Path(os.path.abspath(Path(name).expanduser()))
    while path.name == RUN_STUDENT:
        path = path.parent
    return path.name or RUN_STUDENT


def find_student(name: str | os.PathLike[str] | None) -> Student | None:
    """The student of a bundled name or a folder; None for None and "none", the teacher itself.

    A run's folder stands for the student in it.

    Raises:
        ValueError: if there is no such student, or the folder holds no weights.
    """
    text = "none" if name is None else check_path("student", name)
    if text.lower() == "none":
        return None
    folder = BUNDLED_STUDENTS / text if text in bundled_students() else Path(text).expanduser()
    if not text or not os.path.isdir(folder):  # unlike Path's, false for names that cannot be
        available = ", ".join(("none", *bundled_students()))
        raise ValueError(
            f"student = {shorten(text, 200)} is unknown; use one of {available}, or the path of a"
            " student's folder"
        )
    if not (folder / INFO_FILE).is_file() and (folder / RUN_STUDENT / INFO_FILE).is_file():
        folder /= RUN_STUDENT
    student = Student(text, folder, StudentInfo.load(folder))
    if not student.is_lora and not (folder / "transformer" / "config.json").is_file():
        raise ValueError(
            f"student = {text!r} has no weights: neither {LORA_FILE} nor transformer/config.json"
        )
    return student
