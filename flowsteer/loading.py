"""From a name to a ready pipeline: bundled models, folders and hub ids, with a student or not."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from flowsteer.families import check_drawn, check_drawn_index, loading_errors, read_index
from flowsteer.flow.grids import stock_grid
from flowsteer.students import INFO_FILE, LORA_FILE, RUN_STUDENT, Student, find_student
from flowsteer.validation import check_scheduler, one_line, shorten

WEIGHTS = Path(__file__).parent / "emoji" / "weights"
BUNDLED_MODELS = {"emoji": WEIGHTS / "pipeline"}
DEFAULT_GUIDANCE_SCALE = 7.0  # what the SD3 pipeline itself uses
TEACHER_STEPS = 28
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


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


def pipeline_info(pipe: Any) -> PipelineInfo:
    """What `pipe` is; for a pipeline that `load_pipeline` did not make, what can be said of it."""
    info = getattr(pipe, "flowsteer_info", None)
    return info or PipelineInfo(str(getattr(pipe, "name_or_path", "") or type(pipe).__name__))


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
            float32 LoRA is merged into the weights, which makes it as fast as a full student.
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

    name = os.fspath(model)
    check_scheduler(scheduler)
    found = find_student(student)
    source = resolve_model(name)
    target = check_device(device)
    if found is not None:
        check_drawable(name)  # students are of no other family
    pipe = _read_pipeline(name, source, check_dtype(dtype, source, target))
    if name not in BUNDLED_MODELS:
        check_pipeline_values(pipe, name)
    pipe.flowsteer_info = PipelineInfo(name, _default_guidance_scale(name))
    set_scheduler(pipe, scheduler)
    pipe.to(target)
    pipe.set_progress_bar_config(disable=True)
    if found is not None:
        _apply_student(pipe, found, allow_grid_mismatch)
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
    info = pipeline_info(pipe)
    if info.student is not None:
        raise ValueError(f"the pipeline is the student {info.student.name!r}; give its teacher's")
    found = find_student(student)
    if found is not None:
        check_drawn(pipe)
    transformer = pipe.transformer if found is None else copy.deepcopy(pipe.transformer)
    scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)
    twin = type(pipe)(**pipe.components | {"transformer": transformer, "scheduler": scheduler})
    twin.flowsteer_info = info
    twin.set_progress_bar_config(disable=True)
    if found is not None:
        _apply_student(twin, found, allow_grid_mismatch)
    return twin


def resolve_model(model: str) -> str:
    """The folder or hub id behind a model's name.

    Raises:
        ValueError: if it is neither bundled, nor a pipeline folder, nor shaped like a hub id.
    """
    if model in BUNDLED_MODELS:
        return str(BUNDLED_MODELS[model])
    folder = Path(model).expanduser()
    if model and folder.is_dir():
        if any((place / INFO_FILE).is_file() for place in (folder, folder / RUN_STUDENT)):
            raise ValueError(f"model = {model!r} is a student; give it as student=, beside a model")
        if not (folder / "model_index.json").is_file():
            raise ValueError(
                f"model = {model!r} is no pipeline: the folder has no model_index.json;"
                " give a folder that save_pretrained wrote"
            )
        return str(folder)
    if HUB_ID.fullmatch(model) and not folder.exists():
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
        torch.empty(0, device=found)
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


def set_scheduler(
    pipe: Any,
    scheduler: str = "rectified",
    window_edges: tuple[float, ...] | None = None,
    allow_grid_mismatch: bool = False,
) -> None:
    """Give a flow-matching pipeline the rectified or the stock Euler scheduler, in place.

    Raises:
        ValueError: if its present scheduler is no FlowMatchEulerDiscreteScheduler.
    """
    from diffusers import FlowMatchEulerDiscreteScheduler

    from flowsteer.schedulers import RectifiedFlowMatchEulerDiscreteScheduler

    if not isinstance(pipe.scheduler, FlowMatchEulerDiscreteScheduler):
        raise ValueError(
            f"{type(pipe).__name__} uses {type(pipe.scheduler).__name__}; flowsteer needs a"
            " flow-matching model with FlowMatchEulerDiscreteScheduler"
        )
    if check_scheduler(scheduler) == "stock":
        pipe.scheduler = FlowMatchEulerDiscreteScheduler.from_config(pipe.scheduler.config)
        return
    pipe.scheduler = RectifiedFlowMatchEulerDiscreteScheduler.from_config(
        pipe.scheduler.config,
        window_edges=None if window_edges is None else list(window_edges),
        allow_grid_mismatch=allow_grid_mismatch,
    )


def _is_local(source: str) -> bool:
    return Path(source).is_dir()


def _default_guidance_scale(model: str) -> float:
    """The scale fixed on the dev prompts for the bundled model, the pipeline's own for others."""
    if model not in BUNDLED_MODELS:
        return DEFAULT_GUIDANCE_SCALE
    defaults = json.loads((WEIGHTS / "defaults.json").read_text(encoding="utf-8"))
    return float(defaults["guidance_scale"])


def _read_pipeline(name: str, source: str, dtype: torch.dtype) -> Any:
    """Load from a folder or the hub; every way in which that fails becomes one line."""
    local = _is_local(source)
    options = {"dtype": dtype, "use_safetensors": True, "local_files_only": local}
    with quiet(bars=not local), loading_errors(name, local):  # gigabytes may come from the hub
        from diffusers import DiffusionPipeline

        from flowsteer.models.folders import check_pipeline_folder
        from flowsteer.models.sd3 import fold_pipeline
        from flowsteer.prompting import EmojiPipeline

        if local and name not in BUNDLED_MODELS:
            check_pipeline_folder(source)
        index = read_index(source)
        kind = index["_class_name"]
        without_t5 = kind.startswith("StableDiffusion3") and not any(
            index.get("text_encoder_3") or ()
        )
        if without_t5:
            options |= {"text_encoder_3": None, "tokenizer_3": None}
        pipe = DiffusionPipeline.from_pretrained(source, **options)
        if without_t5:
            fold_pipeline(pipe)
        return EmojiPipeline(**pipe.components) if name in BUNDLED_MODELS else pipe


def _apply_student(pipe: Any, student: Student, allow_grid_mismatch: bool) -> None:
    """Put a student's weights and edges into its teacher's pipeline."""
    from diffusers import FlowMatchEulerDiscreteScheduler
    from safetensors import SafetensorError

    from flowsteer.models.sd3 import load_transformer
    from flowsteer.schedulers import RectifiedFlowMatchEulerDiscreteScheduler

    info = student.info
    stock = not isinstance(pipe.scheduler, RectifiedFlowMatchEulerDiscreteScheduler)
    if stock and isinstance(pipe.scheduler, FlowMatchEulerDiscreteScheduler):
        if not allow_grid_mismatch:
            info.check_grid(stock_grid(info.num_inference_steps, pipe.scheduler.config.shift))
    else:
        set_scheduler(pipe, "rectified", info.edges, allow_grid_mismatch)
    try:
        with quiet():
            _load_lora(pipe, student) if student.is_lora else load_transformer(pipe, student.folder)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        model = pipeline_info(pipe).model
        raise ValueError(
            f"student = {student.name!r} does not fit the model {model!r} (it was taught by"
            f" {info.teacher!r}): {one_line(error)}"
        ) from error
    pipe.flowsteer_info = replace(
        pipeline_info(pipe), student=student, allow_grid_mismatch=allow_grid_mismatch
    )


def _load_lora(pipe: Any, student: Student) -> None:
    from flowsteer.models.lora_files import check_lora_file

    check_lora_file(student.folder / LORA_FILE)
    pipe.load_lora_weights(
        str(student.folder), weight_name=LORA_FILE, adapter_name="student", local_files_only=True
    )
    if pipe.get_list_adapters().get("transformer") != ["student"]:
        raise ValueError(f"{LORA_FILE} has no weights for the transformer")
    if pipe.transformer.dtype == torch.float32:
        # in half precision the merged sum would round the small update away
        pipe.fuse_lora(components=["transformer"], adapter_names=["student"])
        pipe.unload_lora_weights()


@contextlib.contextmanager
def quiet(bars: bool = False) -> Iterator[None]:
    """Hold back notices of diffusers and transformers and, unless `bars`, progress bars."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    libraries = (transformers_logging, diffusers_logging)
    levels = [library.get_verbosity() for library in libraries]
    hidden = [lib for lib in libraries if not bars and lib.is_progress_bar_enabled()]
    try:
        for library in libraries:
            library.set_verbosity_error()
        for library in hidden:
            library.disable_progress_bar()
        with warnings.catch_warnings():
            # diffusers still passes it to the hub's client, which warns of its own caller
            warnings.filterwarnings("ignore", message=".*local_dir_use_symlinks")
            yield
    finally:
        for library in hidden:
            library.enable_progress_bar()
        for library, level in zip(libraries, levels, strict=True):
            library.set_verbosity(level)
