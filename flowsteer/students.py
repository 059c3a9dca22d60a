"""Students: folders that describe themselves in `flowsteer.json`.

A folder holds either `pytorch_lora_weights.safetensors` (a LoRA) or `transformer/` (a full
network). Bundled students are named, all others are given by their path, or by the folder of the
run that taught them, which has it in `student/`.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flowsteer.flow.windows import TimeWindows

INFO_FILE = "flowsteer.json"
LORA_FILE = "pytorch_lora_weights.safetensors"
RUN_STUDENT = "student"
"""Subfolder of a run's folder that holds what it taught."""
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
        ValueError: if the edges are no descending cut of [0, 1].
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
        object.__setattr__(self, "edges", tuple(float(edge) for edge in self.edges))
        if self.guidance_range is not None:
            low, high = self.guidance_range
            object.__setattr__(self, "guidance_range", (float(low), float(high)))
        TimeWindows(self.edges)

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
        """Read `flowsteer.json`.

        Raises:
            ValueError: if the file is missing, is no JSON object, or has other fields than ours.
        """
        path = Path(folder) / INFO_FILE
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ValueError(f"{str(folder)!r} is no student: it has no {INFO_FILE}") from error
        except ValueError as error:
            raise ValueError(f"{str(path)!r} is not readable as JSON: {error}") from error
        return cls._from_json(values, path)

    @classmethod
    def _from_json(cls, values: Any, path: Path) -> StudentInfo:
        if not isinstance(values, dict):
            raise ValueError(f"{str(path)!r} must hold a JSON object")
        known = {item.name for item in dataclasses.fields(cls)}
        if unknown := sorted(values.keys() - known):
            raise ValueError(
                f"{str(path)!r} has unknown fields {', '.join(unknown)};"
                " a newer flowsteer may have written it"
            )
        try:
            return cls(**values)
        except TypeError as error:
            raise ValueError(f"{str(path)!r} is incomplete: {error}") from error


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
    text = "none" if name is None else os.fspath(name)
    if text.lower() == "none":
        return None
    folder = BUNDLED_STUDENTS / text if text in bundled_students() else Path(text).expanduser()
    if not text or not folder.is_dir():
        available = ", ".join(("none", *bundled_students()))
        raise ValueError(
            f"student = {text!r} is unknown; use one of {available}, or the path of a student's"
            " folder"
        )
    if not (folder / INFO_FILE).is_file() and (folder / RUN_STUDENT / INFO_FILE).is_file():
        folder /= RUN_STUDENT
    student = Student(text, folder, StudentInfo.load(folder))
    if not student.is_lora and not (folder / "transformer" / "config.json").is_file():
        raise ValueError(
            f"student = {text!r} has no weights: neither {LORA_FILE} nor transformer/config.json"
        )
    return student
