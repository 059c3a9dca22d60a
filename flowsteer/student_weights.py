"""A student's weights and window edges, put into its teacher's pipeline."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from flowsteer.flow.grids import stock_grid
from flowsteer.pipeline_info import pipeline_info
from flowsteer.quiet import quiet
from flowsteer.scheduling import set_scheduler
from flowsteer.students import LORA_FILE, Student
from flowsteer.validation import one_line


def apply_student(pipe: Any, student: Student, allow_grid_mismatch: bool) -> None:
    """Change a teacher's pipeline, whose transformer is its own, to a student's.

    Adapters that the transformer carries stay, on top of a LoRA student.

    Raises:
        ValueError: if the student does not fit, or the pipeline's grid lacks its edges.
    """
    from safetensors import SafetensorError

    _check_adapters(pipe, student)
    _set_edges(pipe, student, allow_grid_mismatch)
    try:
        with quiet():
            _put_weights(pipe, student)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        model = pipeline_info(pipe).model
        raise ValueError(
            f"student = {student.name!r} does not fit the model {model!r} (it was taught by"
            f" {student.info.teacher!r}): {one_line(error)}"
        ) from error
    _note(pipe, student, allow_grid_mismatch)


def mark_student(pipe: Any, student: Student, allow_grid_mismatch: bool) -> None:
    """Tell a pipeline whose transformer is a student's already.

    Raises:
        ValueError: if the pipeline's grid lacks the student's edges.
    """
    _set_edges(pipe, student, allow_grid_mismatch)
    _note(pipe, student, allow_grid_mismatch)


def _note(pipe: Any, student: Student, allow_grid_mismatch: bool) -> None:
    pipe.flowsteer_info = replace(
        pipeline_info(pipe), student=student, allow_grid_mismatch=allow_grid_mismatch
    )


def _check_adapters(pipe: Any, student: Student) -> None:
    adapters = getattr(pipe.transformer, "peft_config", None)
    if adapters and not student.is_lora:
        raise ValueError(
            f"student = {student.name!r} is a whole transformer, in which the teacher's adapter"
            f" {', '.join(adapters)} would be lost; call pipe.unload_lora_weights() first, and load"
            " it into the student again"
        )


def _set_edges(pipe: Any, student: Student, allow_grid_mismatch: bool) -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    info = student.info
    if type(pipe.scheduler) is not FlowMatchEulerDiscreteScheduler:
        set_scheduler(pipe, "rectified", info.edges, allow_grid_mismatch)
    elif not allow_grid_mismatch:
        info.check_grid(stock_grid(info.num_inference_steps, pipe.scheduler.shift))


def _put_weights(pipe: Any, student: Student) -> None:
    from flowsteer.models.lora_updates import merge_updates, read_updates
    from flowsteer.models.sd3 import load_transformer

    if not student.is_lora:
        load_transformer(pipe, student.folder)
        return
    info, model = student.info, pipeline_info(pipe).model
    updates = read_updates(
        student.folder / LORA_FILE, info.lora_rank, info.lora_alpha, (info.teacher, model)
    )
    merge_updates(pipe.transformer, updates)
