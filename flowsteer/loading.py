"""From a name to a ready pipeline: bundled models, folders and hub ids, with a student or not."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import re
from pathlib import Path
from typing import Any

import torch

from flowsteer.families import check_drawn, check_drawn_index, loading_errors, read_index
from flowsteer.pipeline_info import (
    DEFAULT_GUIDANCE_SCALE,
    PIPELINE_FILE,
    TEACHER_STEPS,
    PipelineInfo,
    SavedInfo,
    pipeline_info,
    read_info,
)
from flowsteer.quiet import quiet
from flowsteer.scheduling import set_scheduler
from flowsteer.student_weights import apply_student, mark_student
from flowsteer.students import INFO_FILE, RUN_STUDENT, Student, find_student
from flowsteer.validation import check_flag, check_path, check_scheduler, shorten

__all__ = [
    "BUNDLED_MODELS",
    "TEACHER_STEPS",
    "PipelineInfo",
    "check_device",
    "check_dtype",
    "load_pipeline",
    "pipeline_info",
    "resolve_model",
    "set_scheduler",
    "with_student",
]

WEIGHTS = Path(__file__).parent / "emoji" / "weights"
BUNDLED_MODELS = {"emoji": WEIGHTS / "pipeline"}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
LONGEST_HUB_ID = 96
"""By the hub's own rule."""


def load_pipeline(
    model: str | os.PathLike[str] = "emoji",
    student: str | os.PathLike[str] | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    scheduler: str = "rectified",
    allow_grid_mismatch: bool = False,
) -> Any:
    """A ready diffusers pipeline with the rectified scheduler in place.

    Nothing is fetched unless `model` is a hub id. The transformer of an SD3 without T5 folds
    (`flowsteer.models.fold`): the same pictures, in any pipeline made of its parts, in less than
    half the time. Flow-matching pipelines of other families open too, for their own calls;
    `check_drawable` says what flowsteer draws and distils itself.

    Args:
        model: a bundled name ("emoji"), a pipeline folder, or a hub id such as
            "stabilityai/stable-diffusion-3-medium-diffusers".
        student: a bundled student's name or a student folder; None or "none" for the teacher. A
            LoRA is merged into the weights, which makes it as fast as a full student.
        device: such as "cpu" or "cuda:0"; None takes a GPU if there is one.
        dtype: a torch dtype or its name; None means float32, and bfloat16 for hub models on a GPU.
        scheduler: "rectified", or "stock" for the one that diffusers ships.
        allow_grid_mismatch: let a student run on a grid that lacks some of its edges.

    Returns:
        The pipeline, progress bar off; `pipeline_info(pipe)` says what it is.

    Raises:
        ValueError: if the model or student is unknown or broken, or another argument is wrong.
    """
    from flowsteer.models.folders import check_pipeline_values

    name = check_path("model", model)
    check_scheduler(scheduler)
    check_flag("allow_grid_mismatch", allow_grid_mismatch)
    found = find_student(student)
    source = resolve_model(name)
    target = check_device(device)
    if found is not None:
        check_drawable(name)  # students are of no other family
    saved, folder = _saved_info(name, source)
    if saved.student is not None:
        own = Student(name, folder, saved.student)
        if found is not None and found.folder.resolve() != folder.resolve():
            raise ValueError(f"model = {name!r} is a student itself; give its teacher's pipeline")
    pipe = _read_pipeline(name, source, check_dtype(dtype, source, target), saved)
    if name not in BUNDLED_MODELS:
        check_pipeline_values(pipe, name)
    scale = saved.guidance_scale
    pipe.flowsteer_info = PipelineInfo(name, DEFAULT_GUIDANCE_SCALE if scale is None else scale)
    set_scheduler(pipe, scheduler)
    pipe.to(target)
    pipe.set_progress_bar_config(disable=True)
    if saved.student is not None:
        mark_student(pipe, own, allow_grid_mismatch)
    elif found is not None:
        apply_student(pipe, found, allow_grid_mismatch)
    return pipe


def with_student(
    pipe: Any, student: str | os.PathLike[str] | None, allow_grid_mismatch: bool = False
) -> Any:
    """A second pipeline that shares all of `pipe` but its transformer and scheduler.

    Args:
        pipe: a teacher's pipeline.
        student: as in `load_pipeline`.
        allow_grid_mismatch: as in `load_pipeline`.

    Raises:
        ValueError: if the student is unknown or does not fit, or `pipe` is a student already or
            of another family.
    """
    from diffusers import StableDiffusion3Pipeline
    from diffusers.utils.torch_utils import unwrap_module

    from flowsteer.models.compiled import uncompiled
    from flowsteer.pipelines import DefaultsPipeline

    check_flag("allow_grid_mismatch", allow_grid_mismatch)
    info = pipeline_info(pipe)
    if info.student is not None:
        raise ValueError(f"the pipeline is the student {info.student.name!r}; give its teacher's")
    found = find_student(student)
    if found is not None:
        check_drawn(pipe)
    parts = pipe.components | {"scheduler": copy.deepcopy(pipe.scheduler)}
    if found is not None:  # a compiled network's copy is not compiled
        parts["transformer"] = uncompiled(copy.deepcopy(unwrap_module(pipe.transformer)))
    kind = DefaultsPipeline if type(pipe) is StableDiffusion3Pipeline else type(pipe)
    twin = kind(**parts)
    twin.flowsteer_info = info
    twin.set_progress_bar_config(disable=True)
    if found is not None:
        apply_student(twin, found, allow_grid_mismatch)
    return twin


def resolve_model(model: str) -> str:
    """The folder or hub id behind a model's name.

    Raises:
        ValueError: if it is neither bundled, nor a pipeline folder, nor shaped like a hub id.
    """
    if model in BUNDLED_MODELS:
        return str(BUNDLED_MODELS[model])
    folder = Path(model).expanduser()
    if model and os.path.isdir(folder):  # unlike Path's, false for names that cannot be
        is_pipeline = (folder / "model_index.json").is_file()  # a saved student is both
        places = () if is_pipeline else (folder, folder / RUN_STUDENT)
        if any((place / INFO_FILE).is_file() for place in places):
            raise ValueError(f"model = {model!r} is a student; give it as student=, beside a model")
        if not is_pipeline:
            raise ValueError(
                f"model = {model!r} is no pipeline: the folder has no model_index.json;"
                " give a folder that save_pretrained wrote"
            )
        return str(folder)
    if len(model) <= LONGEST_HUB_ID and HUB_ID.fullmatch(model) and not os.path.exists(folder):
        return model
    raise ValueError(
        f"model = {shorten(model)} is unknown; use {', '.join(BUNDLED_MODELS)}, an existing"
        " pipeline folder, or a hub id such as stabilityai/stable-diffusion-3-medium-diffusers"
    )


def check_drawable(model: str) -> None:
    """Make sure that flowsteer can draw and distil a model, before gigabytes are loaded.

    `load_pipeline` also opens flow-matching pipelines of other families, for their own calls.

    Raises:
        ValueError: as `resolve_model`, if its model_index.json cannot be read or names no class,
            or if it is a pipeline of another family.
    """
    source = resolve_model(model)
    with quiet(), loading_errors(model, _is_local(source)):
        index = read_index(source)
    check_drawn_index(model, index)


def check_device(device: str | torch.device | None) -> torch.device:
    """A device that is there; None takes the first GPU, or else the CPU.

    Raises:
        ValueError: if torch does not know the device or this machine lacks it.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.zeros(1, device=found).item()  # "meta" holds no values
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        raise ValueError(
            f"device = {shorten(device)} is not available here; use cpu, or cuda where there is a"
            " GPU"
        ) from error
    return found


def check_dtype(dtype: str | torch.dtype | None, source: str, device: torch.device) -> torch.dtype:
    """The dtype to load a model in, with the default of `load_pipeline`.

    Raises:
        ValueError: if it is none of float32, bfloat16 and float16.
    """
    if dtype is None:
        on_gpu = device.type != "cpu" and not _is_local(source)
        return torch.bfloat16 if on_gpu else torch.float32
    found = DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if found is None or found not in DTYPES.values():
        raise ValueError(f"dtype = {shorten(dtype)} is unknown; use one of {', '.join(DTYPES)}")
    return found


def _is_local(source: str) -> bool:
    return Path(source).is_dir()


def _saved_info(name: str, source: str) -> tuple[SavedInfo, Path]:
    """What a model's folder or repository says of it, and the folder that says so.

    Raises:
        ValueError: if it is wrong; naming the file.
    """
    if name in BUNDLED_MODELS:
        # the scale fixed on the dev prompts
        defaults = json.loads((WEIGHTS / "defaults.json").read_text(encoding="utf-8"))
        return SavedInfo(float(defaults["guidance_scale"]), "emoji", False), Path(source)
    folder = Path(source)
    if not _is_local(source):
        from huggingface_hub import hf_hub_download

        for file in (PIPELINE_FILE, INFO_FILE):
            # what cannot be had is not there; if all cannot, reading the pipeline will say why
            with contextlib.suppress(OSError, ValueError), quiet():
                folder = Path(hf_hub_download(source, file)).parent
    return read_info(folder), folder


def _read_pipeline(name: str, source: str, dtype: torch.dtype, saved: SavedInfo) -> Any:
    """Load from a folder or the hub; every way in which that fails becomes one line."""
    local = _is_local(source)
    options = {"dtype": dtype, "use_safetensors": True, "local_files_only": local}
    with quiet(bars=not local), loading_errors(name, local):  # gigabytes may come from the hub
        from diffusers import DiffusionPipeline

        from flowsteer.models.folders import check_pipeline_folder
        from flowsteer.models.sd3 import fold_pipeline
        from flowsteer.pipelines import DefaultsPipeline
        from flowsteer.prompting import EmojiPipeline

        if local and name not in BUNDLED_MODELS:
            check_pipeline_folder(source)
        index = read_index(source)
        name_of_class = index["_class_name"]
        has_t5 = saved.has_t5 and any(index.get("text_encoder_3") or ())
        without_t5 = name_of_class.startswith("StableDiffusion3") and not has_t5
        if without_t5:
            options |= {"text_encoder_3": None, "tokenizer_3": None}
        kind: Any = EmojiPipeline if saved.reads == "emoji" else DefaultsPipeline
        if name_of_class != kind.__name__:
            kind = DiffusionPipeline
        pipe = kind.from_pretrained(source, **options)
        return fold_pipeline(pipe) if without_t5 else pipe
