"""How the emoji teacher is trained: SD3's transformer and its two text encoders together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from diffusers import AutoencoderKL, StableDiffusion3Pipeline
from torch import Tensor, nn

from flowsteer.emoji.batches import LatentBank, fill_bank, tokenize
from flowsteer.emoji.captions import caption_corpus
from flowsteer.emoji.pipeline import build_pipeline, save_pipeline
from flowsteer.flow import interpolate, shift_sigmas, velocity
from flowsteer.models import SD3Field, compile_blocks, encode_tokens, fold_equal_tokens
from flowsteer.training import StepReport, TrainingConfig, train
from flowsteer.training.data import seeded_generator
from flowsteer.training.machine import check_compiler
from flowsteer.training.results import Result, ResultFolder
from flowsteer.training.run_settings import RunSettings, fingerprint, texts_fingerprint

CAPTION_DROPOUT = 0.1  # empty captions, for classifier-free guidance (Ho & Salimans 2022)
TIME_SHIFT = 1.5  # training times lean towards noise, as in SD3 (Esser et al. 2024, section 5.3)
CORPUS_SIZE = 200_000
PIPELINE = ResultFolder(
    "pipeline",
    "model_index.json",
    ("*/*.json", "*/*.safetensors", "*/*.jinja", "*/merges.txt"),
)


class TextToVelocity(nn.Module):
    """The trained whole: token ids and noisy latents to a velocity."""

    def __init__(self, pipe: StableDiffusion3Pipeline):
        super().__init__()
        self.transformer = pipe.transformer
        self.text_encoder = pipe.text_encoder
        self.text_encoder_2 = pipe.text_encoder_2
        fold_equal_tokens(self.transformer)

    def forward(self, x_t: Tensor, t: Tensor, ids: Tensor) -> Tensor:
        """Velocity at x_t (b, c, h, w), t (b,), for ids (b, length)."""
        condition = encode_tokens([self.text_encoder, self.text_encoder_2], ids)
        return SD3Field(self.transformer)(x_t, t, condition)


def train_teacher(
    config: TrainingConfig,
    vae: AutoencoderKL,
    size: str = "emoji",
    start: StableDiffusion3Pipeline | None = None,
    scenes: int = 1_000_000,
    report_every: int = 10,
) -> Iterator[StepReport]:
    """Flow matching on encoded scenes; the result is saved as `config.output_dir/pipeline`.

    Args:
        config: of the run.
        vae: a trained autoencoder.
        size: of a fresh model, a key of `SIZES`.
        start: a pipeline to go on from, instead of a fresh one.
        scenes: how many are drawn and encoded before the first step; every seed draws others.
        report_every: steps between reports.
    """
    accelerator = Accelerator(mixed_precision=config.mixed_precision)
    check_compiler(config.compile, accelerator.device)
    pipe = start or build_pipeline(size, config.seed, caption_corpus(CORPUS_SIZE, seed=0))
    pipe.vae = vae.to(accelerator.device, memory_format=torch.channels_last).eval()
    model = TextToVelocity(pipe).to(accelerator.device, torch.float32).train()
    bank = _fill(config, pipe, scenes, accelerator)
    empty = tokenize(pipe.tokenizer, [""]).to(accelerator.device)
    if config.compile:
        compile_blocks(pipe.transformer.transformer_blocks)

    def losses(step: int, micro_step: int) -> Iterator[Tensor]:
        numbers = (config.seed, step, micro_step, accelerator.process_index)
        generator = seeded_generator(accelerator.device, *numbers)
        x_0, ids = bank.draw(config.train_batch_size, generator)
        eps = torch.randn(x_0.shape, generator=generator, device=x_0.device)
        t = training_times(len(x_0), generator)
        dropped = torch.rand(len(x_0), 1, generator=generator, device=x_0.device) < CAPTION_DROPOUT
        with accelerator.autocast():
            v = model(interpolate(x_0, eps, t), t, torch.where(dropped, empty, ids))
        yield F.mse_loss(v.float(), velocity(x_0, eps))

    def write(folder: Path, steps: int) -> None:
        save_pipeline(pipe, folder)

    vocabulary = texts_fingerprint(sorted(pipe.tokenizer.get_vocab()))
    settings = RunSettings.of(config).adding(
        {"size": size, "vae": ["", fingerprint([vae])], "vocabulary": vocabulary},
        {"scenes": scenes},
    )
    result = Result(PIPELINE, write)
    yield from train(
        model, losses, config, accelerator, report_every, settings=settings, result=result
    )


def training_times(count: int, generator: torch.Generator) -> Tensor:
    """Logit-normal times, shifted towards noise (Esser et al. 2024, section 3.1): (count,)."""
    t = torch.randn(count, generator=generator, device=generator.device).sigmoid()
    return shift_sigmas(t, TIME_SHIFT)


def _fill(config, pipe, scenes: int, accelerator: Accelerator) -> LatentBank:
    """Every process encodes its own share of the scenes, from seeds of its own."""
    world, rank = accelerator.num_processes, accelerator.process_index
    workers = config.dataloader_num_workers // world
    seed = config.seed * 1000 + rank
    return fill_bank(pipe.vae, pipe.tokenizer, scenes // world, seed, workers)
