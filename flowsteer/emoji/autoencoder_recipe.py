"""How the emoji autoencoder is trained: pictures of scenes, drawn on the fly."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from diffusers import AutoencoderKL
from torch import Tensor

from flowsteer.emoji.art import load_art
from flowsteer.emoji.batches import SceneBatch, encode
from flowsteer.emoji.pipeline import build_autoencoder, find_size
from flowsteer.emoji.render import Renderer
from flowsteer.files import write_text
from flowsteer.measure.images import psnr
from flowsteer.models.autoencoder import decode_latents
from flowsteer.training import StepReport, TrainingConfig, train
from flowsteer.training.data import NumberedBatches, seeded_generator
from flowsteer.training.machine import check_compiler
from flowsteer.training.results import Result, ResultFolder
from flowsteer.training.run_settings import RunSettings

KL_WEIGHT = 1e-4
NORMALIZING_SCENES = 2048
EVALUATION_SCENES = 1024
EVALUATION_SEED = 2**31
AUTOENCODER = ResultFolder("vae", "config.json", ("diffusion_pytorch_model*",))


def train_autoencoder(
    config: TrainingConfig, size: str = "emoji", report_every: int = 10
) -> Iterator[StepReport]:
    """Train an AutoencoderKL on scenes and save it as `config.output_dir/vae`.

    The loss is L1 + L2 + the L1 of picture gradients (edges) + a small KL term. After training,
    the latents' mean and spread become the shift and scaling factors.
    """
    accelerator = Accelerator(mixed_precision=config.mixed_precision)
    check_compiler(config.compile, accelerator.device)
    torch.manual_seed(config.seed)
    vae = build_autoencoder(find_size(size)).to(
        accelerator.device, memory_format=torch.channels_last
    )
    render = Renderer(load_art(), accelerator.device)
    rank, world = accelerator.process_index, accelerator.num_processes
    batches = NumberedBatches(
        SceneBatch(config.train_batch_size, config.seed), config.dataloader_num_workers, world
    )
    if config.compile:
        vae.encoder.compile(dynamic=False)
        vae.decoder.compile(dynamic=False)

    def losses(step: int, micro_step: int) -> Iterator[Tensor]:
        index = (step * config.gradient_accumulation_steps + micro_step) * world + rank
        scenes, _ = batches(index)
        pictures = render(scenes.to(accelerator.device))
        pictures = pictures.contiguous(memory_format=torch.channels_last)
        generator = seeded_generator(accelerator.device, config.seed, index)
        with accelerator.autocast():
            posterior = vae.encode(pictures).latent_dist
            drawn = vae.decode(posterior.sample(generator)).sample
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        yield reconstruction_loss(drawn.float(), pictures) + KL_WEIGHT * kl

    def write(folder: Path, steps: int) -> None:
        normalize_latents(vae, config.seed, NORMALIZING_SCENES)
        vae.to(torch.bfloat16).save_pretrained(folder)
        vae.float()

    settings = RunSettings.of(config).adding({"size": size})
    result = Result(AUTOENCODER, write)
    yield from train(
        vae, losses, config, accelerator, report_every, settings=settings, result=result
    )
    if accelerator.is_main_process:
        report = {"psnr": evaluate_autoencoder(vae, EVALUATION_SCENES), "kl_weight": KL_WEIGHT}
        write_text(Path(config.output_dir) / "autoencoder.json", json.dumps(report))


def reconstruction_loss(drawn: Tensor, pictures: Tensor) -> Tensor:
    """L1 + 4 L2 + L1 of horizontal and vertical differences."""
    loss = F.l1_loss(drawn, pictures) + 4 * F.mse_loss(drawn, pictures)
    for dim in (2, 3):
        loss = loss + F.l1_loss(drawn.diff(dim=dim), pictures.diff(dim=dim))
    return loss


@torch.no_grad()
def normalize_latents(vae: AutoencoderKL, seed: int, scenes: int) -> None:
    """Set the shift and scaling factors so that latents have mean 0 and spread 1."""
    vae.register_to_config(shift_factor=0.0, scaling_factor=1.0)
    z = torch.cat([encode(vae, pictures) for pictures in _pictures(vae, seed, scenes)]).float()
    vae.register_to_config(shift_factor=z.mean().item(), scaling_factor=1 / z.std().item())


@torch.no_grad()
def evaluate_autoencoder(vae: AutoencoderKL, scenes: int) -> float:
    """Mean PSNR in dB over scenes that no run trained on."""
    values = []
    for pictures in _pictures(vae, EVALUATION_SEED, scenes):
        drawn = decode_latents(vae, encode(vae, pictures))
        values.append(psnr(drawn.clamp(-1, 1), pictures))
    return sum(values) / len(values)


def _pictures(vae: AutoencoderKL, seed: int, scenes: int) -> Iterator[Tensor]:
    """Batches of pictures; whole ones, so the last few scenes may be left out."""
    batch_size = min(128, scenes)
    render, make = Renderer(load_art(), vae.device), SceneBatch(batch_size, seed)
    for index in range(scenes // batch_size):
        # numbers from the far end, where no training step gets to
        scenes_at, _ = make(2**40 + index)
        yield render(scenes_at.to(vae.device))
