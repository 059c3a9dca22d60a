"""What a pipeline is: its model, its student, its own numbers; on the pipeline and in its folder.

A folder that `save_pretrained` wrote says it again: `flowsteer_pipeline.json` holds the guidance
scale and how prompts are read, and a student's folder has the student's `flowsteer.json` as well,
so that it is a pipeline and a full student in one. Stock diffusers reads neither.
"""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowsteer.files import write_text
from flowsteer.students import INFO_FILE, LORA_FILE, Student, StudentInfo
from flowsteer.untrusted import name_of, read_json
from flowsteer.validation import check_guidance_scale, shorten

PIPELINE_FILE = "flowsteer_pipeline.json"
DEFAULT_GUIDANCE_SCALE = 7.0  # what the SD3 pipeline itself uses
TEACHER_STEPS = 28
READERS = ("text", "emoji")
"""How a pipeline reads prompts: as they are, or as the bundled model's `EmojiPipeline`."""


@dataclass(frozen=True)
class PipelineInfo:
    """What a loaded pipeline is.

    Args:
        model: bundled name, folder or hub id.
        guidance_scale: the teacher's own scale.
        student: the student in its transformer; None for the teacher.
        allow_grid_mismatch: whether grids that lack an edge of the student are let through.
    """

    model: str
    guidance_scale: float = DEFAULT_GUIDANCE_SCALE
    student: Student | None = None
    allow_grid_mismatch: bool = False

    @property
    def num_inference_steps(self) -> int:
        """Steps unless told otherwise: 28 for a teacher, one a window for a student."""
        return self.student.info.num_inference_steps if self.student else TEACHER_STEPS

    @property
    def default_guidance_scale(self) -> float:
        """Guidance unless told otherwise: the teacher's own, and 1 (none) for a student."""
        return 1.0 if self.student else self.guidance_scale


def pipeline_info(pipe: Any) -> PipelineInfo:
    """What `pipe` is; for a pipeline that `load_pipeline` did not make, what can be said of it."""
    info = getattr(pipe, "flowsteer_info", None)
    return info or PipelineInfo(str(getattr(pipe, "name_or_path", "") or type(pipe).__name__))


@dataclass(frozen=True)
class SavedInfo:
    """What a pipeline's folder says of it.

    Args:
        guidance_scale: the teacher's own scale; None where nothing is said.
        reads: one of `READERS`.
        has_t5: False where its T5 stands in for none (`flowsteer.models.silent_t5`).
        student: what its transformer was taught; None for a teacher.
    """

    guidance_scale: float | None = None
    reads: str = "text"
    has_t5: bool = True
    student: StudentInfo | None = None


def save_info(info: PipelineInfo, reads: str, has_t5: bool, folder: str | os.PathLike[str]) -> None:
    """Write what a pipeline is beside what `save_pretrained` writes, in place of what was there.

    Arguments are as in `PipelineInfo` and `SavedInfo`.

    Raises:
        ValueError: if the folder is that of a LoRA student, whose description would be lost.
    """
    target = Path(folder)
    if (target / LORA_FILE).exists():
        raise ValueError(
            f"{name_of(target)} holds a student's {LORA_FILE}; save the pipeline to another folder"
        )
    record = {"guidance_scale": info.guidance_scale, "reads": reads, "has_t5": has_t5}
    write_text(target / PIPELINE_FILE, json.dumps(record, indent=2) + "\n")
    if info.student is None:
        (target / INFO_FILE).unlink(missing_ok=True)
    else:  # a LoRA is merged by now
        dataclasses.replace(info.student.info, lora_rank=None, lora_alpha=None).save(target)


def read_info(folder: str | os.PathLike[str]) -> SavedInfo:
    """What a pipeline's folder says of it; files that are not there say nothing.

    Raises:
        ValueError: if a file is there and a value in it is wrong; naming the file.
    """
    path = Path(folder) / PIPELINE_FILE
    student = StudentInfo.load(folder) if os.path.lexists(Path(folder) / INFO_FILE) else None
    if not os.path.lexists(path):
        return SavedInfo(student=student)
    values, where = read_json(path, f"a pipeline's {PIPELINE_FILE}"), name_of(path)
    if not isinstance(values, dict):
        raise ValueError(f"{where} must hold a JSON object, as save_pretrained writes it")
    reads = values.get("reads", "text")
    if reads not in READERS:
        raise ValueError(f"{where}: reads = {shorten(reads)} must be {' or '.join(READERS)}")
    scale, has_t5 = values.get("guidance_scale"), values.get("has_t5", True)
    if not isinstance(has_t5, bool):
        raise ValueError(f"{where}: has_t5 = {shorten(has_t5)} must be true or false")
    try:
        scale = None if scale is None else check_guidance_scale(scale)
        return SavedInfo(scale, reads, has_t5, student)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
