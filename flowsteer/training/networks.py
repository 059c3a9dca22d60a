"""The networks of a distillation: teacher, student, critic."""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass, replace
from typing import Any

import torch
from accelerate import Accelerator
from diffusers import StableDiffusion3Pipeline
from torch import Tensor, nn

from flowsteer.distill.critic import TrajectoryCritic
from flowsteer.models.compiled import uncompiled
from flowsteer.models.critic import build_critic
from flowsteer.models.lora import add_lora, load_lora, merge_lora, run_merged
from flowsteer.models.replay import NetworkField, ReplayedField
from flowsteer.models.schedule import check_schedule
from flowsteer.models.sd3 import SD3Field, TextCondition, compile_blocks, load_transformer
from flowsteer.students import LORA_FILE, Student, find_student
from flowsteer.training.distillation_config import DistillationConfig
from flowsteer.training.machine import check_compiler

MOST_FOR_ALL_WEIGHTS = 3e-4
"""A learning rate at which training the whole emoji teacher first undoes what it knows."""


@dataclass(frozen=True, eq=False)
class Networks:
    """Who takes part."""

    student: NetworkField
    teacher: NetworkField
    critic: TrajectoryCritic | None
    lora: Any  # peft's LoraConfig; None for a full student


class AutocastField:
    """A field that computes under the accelerator's autocast and answers in float32."""

    def __init__(self, transformer: nn.Module, accelerator: Accelerator):
        self.transformer, self.accelerator = transformer, accelerator
        self.field = SD3Field(transformer)

    def __call__(self, x: Tensor, t: Tensor, cond: TextCondition) -> Tensor:
        """Velocity at states x (b, c, h, w) and times t (b,): (b, c, h, w), float32."""
        with self.accelerator.autocast():
            return self.field(x, t, cond).float()


def build_networks(
    pipe: StableDiffusion3Pipeline, config: DistillationConfig, accelerator: Accelerator
) -> Networks:
    """The student in place of the pipeline's transformer; teacher and critic are made from it.

    Raises:
        ValueError: if the teacher is none (`check_teacher`), the machine cannot compile, or the
            student to start from is unknown or does not fit.
    """
    check_teacher(pipe)
    check_compiler(config.compile, accelerator.device)
    pipe.transformer = uncompiled(pipe.transformer)  # compiled parts cannot be copied
    pipe.to(accelerator.device)
    for part in (pipe.vae, pipe.text_encoder, pipe.text_encoder_2, pipe.text_encoder_3):
        if part is not None:
            part.requires_grad_(False)
    if config.offload_text_encoders:
        for encoder in (pipe.text_encoder, pipe.text_encoder_2, pipe.text_encoder_3):
            if encoder is not None:
                encoder.to("cpu")
    critic = None
    if config.uses_critic:
        critic = build_critic(
            pipe.transformer,
            config.critic_depth,
            config.critic_training,
            config.critic_heads,
            config.critic_logits,
            gradient_checkpointing=config.gradient_checkpointing,
        ).to(accelerator.device)
    first = find_student(config.student)
    if first is not None and not first.is_lora:
        if config.rank is not None:
            raise ValueError(
                f"rank = {config.rank}: the student {first.name!r} is a whole transformer, and a"
                " LoRA on it would not fit its teacher; give --rank None"
            )
        load_transformer(pipe, first.folder)
    precision = torch.bfloat16 if config.mixed_precision == "bf16" else pipe.transformer.dtype
    lora = _add_adapters(pipe.transformer, config, first)
    frozen = copy.deepcopy(pipe.transformer)
    if lora is not None:
        merge_lora(frozen)  # those of an earlier round count; new ones add nothing
    frozen.requires_grad_(False).eval()
    nn.Module.to(frozen, precision)  # diffusers' own warns of parts to keep in float32: none here
    if config.rank is None:
        if config.learning_rate > MOST_FOR_ALL_WEIGHTS:
            warnings.warn(
                f"learning_rate = {config.learning_rate:g} is one for a LoRA; all weights (rank ="
                f" None) want {MOST_FOR_ALL_WEIGHTS:g} or less",
                stacklevel=2,
            )
        pipe.transformer.float().requires_grad_(True)
    else:
        run_merged(pipe.transformer)
    pipe.transformer.train()
    if config.gradient_checkpointing:
        pipe.transformer.enable_gradient_checkpointing()
    student = AutocastField(pipe.transformer, accelerator)
    networks = Networks(student, SD3Field(frozen), critic, lora)
    if config.compile:
        return compile_networks(networks, replay_student=not config.gradient_checkpointing)
    return networks


def check_teacher(pipe: StableDiffusion3Pipeline) -> None:
    """Make sure that a student of this pipeline will be one of the model that its folder names.

    Raises:
        ValueError: if the pipeline carries adapters or a student, computes in float16, or has times
            that windows do not follow.
    """
    info = getattr(pipe, "flowsteer_info", None)
    name = str(getattr(info, "model", "") or pipe.name_or_path or type(pipe).__name__)
    check_schedule(pipe.scheduler.config, name)
    if (student := getattr(info, "student", None)) is not None:
        raise ValueError(
            f"the pipeline is the student {student.name!r}, not a teacher; give its teacher's,"
            " and the student as config.student"
        )
    for part in ("transformer", "text_encoder", "text_encoder_2", "text_encoder_3"):
        if adapters := getattr(getattr(pipe, part), "peft_config", None):
            raise ValueError(
                f"the teacher's {part} carries the adapter {', '.join(adapters)}, which a student's"
                " folder cannot name; merge it (pipe.fuse_lora(), pipe.unload_lora_weights()), save"
                " the pipeline, and distil from that folder"
            )
    if pipe.transformer.dtype == torch.float16:
        raise ValueError(
            "the teacher is in float16, whose gradients vanish without loss scaling; load it in"
            " bfloat16 or float32"
        )


def compile_networks(networks: Networks, replay_student: bool = True) -> Networks:
    """What `--compile` does: blocks are compiled, and on a GPU calls replayed.

    Args:
        networks: their modules are compiled in place.
        replay_student: a network that recomputes its activations cannot be recorded.
    """
    teacher, student = networks.teacher, networks.student
    for network in (teacher.transformer, student.transformer):
        compile_blocks(network.transformer_blocks)  # type: ignore[arg-type]
    if networks.critic is not None:
        compile_blocks(networks.critic.backbone.blocks)  # type: ignore[arg-type]
    if not next(teacher.transformer.parameters()).is_cuda:
        return networks
    return replace(
        networks,
        teacher=ReplayedField(teacher),
        student=ReplayedField(student) if replay_student else student,
    )


def _add_adapters(transformer: nn.Module, config: DistillationConfig, first: Student | None):
    """Adapters for a LoRA student, those of an earlier round if there was one."""
    if first is not None and first.is_lora:
        if config.rank is None or config.rank != first.info.lora_rank:
            raise ValueError(
                f"rank = {config.rank}: the student {first.name!r} that is to be taught further has"
                f" rank {first.info.lora_rank}; give --rank {first.info.lora_rank}"
            )
        alpha = first.info.lora_alpha or config.rank
        if config.lora_alpha not in (None, alpha):
            raise ValueError(
                f"lora_alpha = {config.lora_alpha:g}: the student {first.name!r} that is to be"
                f" taught further has {alpha:g}; leave --lora_alpha out"
            )
        lora = add_lora(transformer, config.rank, alpha)
        load_lora(transformer, first.folder / LORA_FILE)
        return lora
    if config.rank is None:
        return None
    return add_lora(transformer, config.rank, config.lora_alpha)
