"""Distillation of a text-to-image pipeline into a few-step student."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers import StableDiffusion3Pipeline

import flowsteer
from flowsteer.families import check_drawn
from flowsteer.models.autoencoder import decode_latents
from flowsteer.models.lora import add_lora, save_lora
from flowsteer.models.sd3 import encode_prompts
from flowsteer.noise import latent_shape
from flowsteer.students import INFO_FILE, LORA_FILE, RUN_STUDENT, StudentInfo
from flowsteer.training.checkpoints import load_checkpoint, read_record
from flowsteer.training.data import NumberedBatches
from flowsteer.training.distillation_config import DistillationConfig
from flowsteer.training.draws import SampleBatch, draw_samples
from flowsteer.training.loop import Rival, StepReport, Validation, train
from flowsteer.training.networks import Networks, build_networks
from flowsteer.training.objective import DistillationObjective, Embed, to_device
from flowsteer.training.results import Result, ResultFolder
from flowsteer.training.run_settings import RunSettings, fingerprint, texts_fingerprint
from flowsteer.training.sources import Encode, Source
from flowsteer.training.validation import DistanceToTeacher

FIRST_VALIDATION_SAMPLE = 2**40  # training never gets there
STUDENT = ResultFolder(
    RUN_STUDENT,
    INFO_FILE,
    (LORA_FILE, "transformer/config.json", "transformer/diffusion_pytorch_model*"),
)


def distill(
    pipe: StableDiffusion3Pipeline,
    source: Source,
    config: DistillationConfig,
    guidance_scale: float = 7.0,
    encode: Encode | None = None,
    embed: Embed | None = None,
) -> Iterator[StepReport]:
    """Teach a student and save it as `config.output_dir/student`.

    Args:
        pipe: the teacher's pipeline; on return its transformer is the student.
        source: sample number -> prompt, and picture if the method needs data. Picklable.
        config: of the run.
        guidance_scale: the teacher's, where the config gives no range; a student that teaches
            itself (`config.student`) has none.
        encode: the source's pictures -> latents on the device.
        embed: prompts -> condition; None asks the pipeline's text encoders.

    Yields:
        StepReport, as `flowsteer.training.train`.

    Raises:
        TrainingDiverged: at a loss that is not finite.
        ValueError: if the pipeline is of another family, the student to start from does not fit,
            the method lacks its data, or the folder holds another run.
    """
    check_drawn(pipe)
    on_cpu = pipe.device.type == "cpu"
    accelerator = Accelerator(mixed_precision=config.mixed_precision, cpu=on_cpu)
    torch.manual_seed(config.seed)
    teacher = describe_teacher(pipe, config)
    networks = build_networks(pipe, config, accelerator)
    scale = 1.0 if config.student else guidance_scale
    objective = build_objective(pipe, source, config, scale, networks, accelerator, encode, embed)
    rival = None
    if networks.critic is not None:
        rival = Rival(networks.critic, objective.critic_losses, config.critic_learning_rate)
    validation = None
    if config.validation_steps is not None:
        measure = _validation(pipe, source, config, objective)
        validation = Validation(measure, config.validation_steps)
    settings = describe_run(config, objective, source, networks).adding(teacher)

    def write(folder: Path, steps: int) -> None:
        info = describe(config, objective, networks.lora, steps)
        save_student(pipe.transformer, networks.lora, info, folder)

    yield from train(
        pipe.transformer,
        objective.student_losses,
        config,
        accelerator,
        config.logging_steps,
        rival,
        objective.metrics,
        validation,
        settings,
        Result(STUDENT, write),
    )


def describe_teacher(pipe: Any, config: DistillationConfig) -> dict[str, Any]:
    """What a run's checkpoints say of its teacher: weights, before a student is made, and dtype."""
    encoders = (pipe.text_encoder, pipe.text_encoder_2, pipe.text_encoder_3)
    weights = fingerprint((pipe.transformer, *encoders))
    return {
        "pretrained_model_name_or_path": [config.pretrained_model_name_or_path, weights],
        "dtype": str(pipe.transformer.dtype).removeprefix("torch."),
    }


def describe_run(
    config: DistillationConfig,
    objective: DistillationObjective,
    source: Source,
    networks: Networks,
) -> RunSettings:
    """What else they say of the run.

    Args:
        config: of the run.
        objective: its losses.
        source: of its prompts.
        networks: who takes part.
    """
    function: dict[str, Any] = {"shift": objective.shift}
    if config.student is not None:  # it teaches, merged into its own teacher's weights
        weights = fingerprint([networks.teacher.transformer])
        function["student"] = [config.student, weights]
    low, high = objective.guidance_range
    path: dict[str, Any] = {"guidance_min": low, "guidance_max": high}
    if (texts := getattr(source, "texts", None)) is not None:
        path["prompts"] = texts_fingerprint(texts)
    return RunSettings.of(config).adding(function, path)


def build_objective(
    pipe: Any,
    source: Source,
    config: DistillationConfig,
    guidance_scale: float,
    networks: Networks,
    accelerator: Accelerator,
    encode: Encode | None,
    embed: Embed | None,
) -> DistillationObjective:
    """The run's losses: networks, windows and samples, put together."""
    shift = pipe.scheduler.shift
    windows = config.edges(shift)
    size, k = config.train_batch_size, windows.num_windows
    make = SampleBatch(source, config.seed, size, latent_shape(pipe), k)
    workers, world = config.dataloader_num_workers, accelerator.num_processes
    return DistillationObjective(
        config=config,
        accelerator=accelerator,
        student=networks.student,
        teacher=networks.teacher,
        empty=to_device(encode_prompts(pipe, [""]), accelerator.device),
        windows=windows,
        shift=shift,
        guidance_range=config.guidance_range(guidance_scale),
        batches=NumberedBatches(make, workers, world),
        embed=embed or partial(encode_prompts, pipe),
        encode=encode,
        critic=networks.critic,
    )


def _validation(
    pipe: Any, source: Source, config: DistillationConfig, objective: DistillationObjective
) -> DistanceToTeacher:
    """Fixed noises and prompts, which training never draws."""
    first = FIRST_VALIDATION_SAMPLE
    numbers = range(first, first + config.num_validation_images)
    draws = draw_samples(config.seed, numbers, latent_shape(pipe), 1)
    low, high = objective.guidance_range
    return DistanceToTeacher(
        student=objective.student,
        teacher=objective.teacher,
        empty=objective.empty,
        guidance_scale=(low + high) / 2,
        windows=objective.windows,
        shift=objective.shift,
        eps=draws.eps.to(objective.accelerator.device),
        cond=to_device(objective.embed(source(numbers).texts), objective.accelerator.device),
        decode=None if config.report_to == "none" else partial(decode_latents, pipe.vae),
    )


def describe(
    config: DistillationConfig, objective: DistillationObjective, lora: Any, steps: int
) -> StudentInfo:
    """What the student's folder says of it."""
    settings = {
        "preset": config.preset,
        "learning_rate": config.learning_rate,
        "train_batch_size": config.train_batch_size,
        "substeps": config.teacher_steps,
        "solver": config.solver,
        "share_at_hi": config.share_at_hi,
        "share_on_policy": config.share_on_policy,
        "student": config.student,
    }
    if config.uses_critic:
        names = ("adversarial_loss", "lambda_adv", "lambda_fm", "critic_learning_rate")
        settings |= {name: getattr(config, name) for name in names}
    return StudentInfo(
        method=config.method,
        teacher=config.pretrained_model_name_or_path,
        edges=objective.windows.edges,
        shift=objective.shift,
        guidance_range=objective.guidance_range,
        lora_rank=config.rank,
        lora_alpha=None if lora is None else lora.lora_alpha,
        steps=steps,
        settings=settings,
        versions=_versions(),
    )


def save_student(transformer, lora, info: StudentInfo, folder: Path) -> None:
    """Write a student into an empty folder."""
    if lora is None:
        transformer.save_pretrained(folder / "transformer")
    else:
        save_lora(transformer, lora, folder)
    info.save(folder)


def load_checkpoint_student(
    pipe: StableDiffusion3Pipeline, folder: str | Path, config: DistillationConfig
) -> dict[str, Any]:
    """Make the pipeline's transformer the averaged student of a checkpoint, in place.

    Args:
        pipe: the teacher's.
        folder: a checkpoint of the run.
        config: the run's.

    Returns:
        The checkpoint's state: training seconds, samples.

    Raises:
        ValueError: if the checkpoint is damaged, or of a run with other settings.
    """
    RunSettings.of(config).check_function(read_record(Path(folder)).settings, str(folder))
    _, tensors, state = load_checkpoint(folder)
    if config.rank is not None:
        add_lora(pipe.transformer, config.rank, config.lora_alpha)
    parameters = dict(pipe.transformer.named_parameters())
    if missing := tensors["ema"].keys() - parameters.keys():
        raise ValueError(f"{folder} averages {min(missing)}, which the network lacks; check rank")
    with torch.no_grad():
        for name, average in tensors["ema"].items():
            parameters[name].copy_(average)
    return state


def _versions() -> dict[str, str]:
    names = ("torch", "diffusers", "transformers", "peft", "accelerate")
    found = {name: importlib.metadata.version(name) for name in names}
    return {"flowsteer": flowsteer.__version__, **found}
