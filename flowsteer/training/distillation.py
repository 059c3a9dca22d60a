"""Distillation of a text-to-image pipeline into a few-step student."""

from __future__ import annotations

import copy
import importlib.metadata
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from diffusers import StableDiffusion3Pipeline
from torch import Tensor

import flowsteer
from flowsteer.distill.methods import find_method
from flowsteer.distill.objectives import window_velocity_loss
from flowsteer.distill.starts import Batch, Solve
from flowsteer.flow import TimeWindows, guided, rectified_grid
from flowsteer.models.lora import add_lora, save_lora
from flowsteer.models.sd3 import SD3Field, TextCondition, compile_blocks, encode_prompts
from flowsteer.students import StudentInfo
from flowsteer.training.checkpoints import latest_checkpoint, steps_of
from flowsteer.training.config import DistillationConfig
from flowsteer.training.data import NumberedBatches, seeded_generator
from flowsteer.training.loop import StepReport, train

Prompts = Callable[[int], list[str]]


@dataclass(frozen=True)
class PromptBatch:
    """Makes batch number n: prompts drawn from a list."""

    texts: tuple[str, ...]
    batch_size: int
    seed: int

    def __call__(self, index: int) -> list[str]:
        """`batch_size` prompts, drawn with replacement."""
        return random.Random(f"prompts/{self.seed}/{index}").choices(self.texts, k=self.batch_size)


def distill(
    pipe: StableDiffusion3Pipeline,
    prompts: Prompts,
    config: DistillationConfig,
    guidance_scale: float = 7.0,
    report_every: int = 1,
) -> Iterator[StepReport]:
    """Teach a student and save it as `config.output_dir/student`.

    Args:
        pipe: the teacher's pipeline; on return its transformer is the student.
        prompts: number of a batch -> its prompts, `config.train_batch_size` of them. Picklable.
        config: of the run.
        guidance_scale: the teacher's, where the config gives no range.
        report_every: steps between reports.

    Yields:
        StepReport, as `flowsteer.training.train`.

    Raises:
        TrainingDiverged: at a loss that is not finite.
    """
    accelerator = Accelerator(mixed_precision=config.mixed_precision)
    torch.manual_seed(config.seed)
    student, teacher, lora = _networks(pipe, config, accelerator)
    method = find_method(config.method)
    shift = pipe.scheduler.config.shift
    windows = TimeWindows.from_grid(rectified_grid(config.num_windows, shift))
    solve = Solve(config.substeps, shift)
    empty = encode_prompts(pipe, [""])
    world, rank = accelerator.num_processes, accelerator.process_index
    texts = NumberedBatches(prompts, config.dataloader_num_workers, world)

    def losses(step: int, micro_step: int) -> Iterator[Tensor]:
        index = (step * config.gradient_accumulation_steps + micro_step) * world + rank
        cond = encode_prompts(pipe, texts(index))
        generator = seeded_generator(accelerator.device, config.seed, index)
        batch = _draw(pipe, cond, windows, config.share_at_hi, generator)
        scale = draw_guidance(config, guidance_scale, len(batch.eps), generator)
        segments = method.start(guided(teacher, scale, empty), batch, windows, solve)
        for segment, depths in zip(segments, batch.depths, strict=True):
            with accelerator.autocast():
                loss = window_velocity_loss(student, segment, depths, cond)
            # one window's graph at a time: this one is gone before the next window is solved
            yield loss / windows.num_windows

    steps = 0
    for report in train(pipe.transformer, losses, config, accelerator, report_every):
        steps = report.step
        yield report
    if accelerator.is_main_process:
        if steps == 0:  # the run was complete already; only its student is written again
            done = latest_checkpoint(config.output_dir)
            steps = steps_of(done) if done else 0
        low, high = guidance_range(config, guidance_scale)
        info = StudentInfo(
            method=config.method,
            teacher=config.pretrained_model_name_or_path,
            edges=windows.edges,
            shift=shift,
            guidance_range=(low, high),
            lora_rank=config.rank,
            lora_alpha=None if lora is None else lora.lora_alpha,
            steps=steps,
            versions=_versions(),
        )
        save_student(pipe.transformer, lora, info, Path(config.output_dir) / "student")


def guidance_range(config: DistillationConfig, default: float) -> tuple[float, float]:
    """Lowest and highest scale of the teacher."""
    if config.guidance_min is None or config.guidance_max is None:
        return default, default
    return config.guidance_min, config.guidance_max


def draw_guidance(
    config: DistillationConfig, default: float, count: int, generator: torch.Generator
) -> Tensor:
    """One scale a sample (FlowSteer, section 4.1: U[7, 13] for SD3): (count,)."""
    low, high = guidance_range(config, default)
    return low + (high - low) * torch.rand(count, generator=generator, device=generator.device)


def save_student(transformer, lora, info: StudentInfo, folder: Path) -> None:
    """Write a student folder: aside first, then renamed into place."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=".student-", dir=folder.parent))
    try:
        if lora is None:
            transformer.save_pretrained(aside / "transformer")
        else:
            save_lora(transformer, lora, aside)
        info.save(aside)
        aside.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(aside, folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _networks(pipe, config: DistillationConfig, accelerator: Accelerator):
    """The student's and the teacher's fields; the teacher is a frozen copy in compute precision."""
    pipe.to(accelerator.device)
    precision = torch.bfloat16 if config.mixed_precision == "bf16" else pipe.transformer.dtype
    frozen = copy.deepcopy(pipe.transformer).requires_grad_(False).eval().to(precision)
    for part in (pipe.vae, pipe.text_encoder, pipe.text_encoder_2):
        part.requires_grad_(False)
    if config.rank is None:
        lora = None
        pipe.transformer.float().requires_grad_(True)
    else:
        lora = add_lora(pipe.transformer, config.rank, config.lora_alpha)
    pipe.transformer.train()
    if config.compile:
        compile_blocks(frozen)
        compile_blocks(pipe.transformer)
    return SD3Field(pipe.transformer), SD3Field(frozen), lora


def _draw(
    pipe, cond: TextCondition, windows: TimeWindows, share_at_hi: float, generator: torch.Generator
) -> Batch:
    """Noise of the pipeline's latent shape and a time in every window for each prompt."""
    config = pipe.transformer.config
    shape = (len(cond.pooled), config.in_channels, config.sample_size, config.sample_size)
    eps = torch.randn(shape, generator=generator, device=generator.device)
    size = (2, windows.num_windows, shape[0])
    depths, at_hi = torch.rand(size, generator=generator, device=generator.device)
    return Batch(eps, depths * (at_hi >= share_at_hi), cond)


def _versions() -> dict[str, str]:
    names = ("torch", "diffusers", "transformers", "peft", "accelerate")
    found = {name: importlib.metadata.version(name) for name in names}
    return {"flowsteer": flowsteer.__version__, **found}
