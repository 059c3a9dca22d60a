"""How long a training iteration takes with either way of starting windows."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from flowsteer.bench.report import BenchReport, Ratio, Timing, interleave
from flowsteer.distill.objectives import window_velocity_loss
from flowsteer.distill.starts import (
    Batch,
    Solve,
    Start,
    authentic_starts,
    interpolated_starts,
)
from flowsteer.flow import TimeWindows, guided, rectified_grid

NUM_WINDOWS = 4
RANK = 24
PERFLOW, OTA = "PeRFlow: interpolated starts", "OTA: one rollout through all windows"


def bench_starts(
    pipe: Any, repeats: int = 5, batch_size: int = 2, substeps: int = 7
) -> BenchReport:
    """Online Trajectory Alignment against PeRFlow's starts: seconds per student sample.

    A whole training iteration each, on the same noise and prompts and with the same solver: the
    guided teacher crosses every window, and a LoRA student's loss in each is backpropagated.
    PeRFlow's real data is encoded ahead and costs it nothing here.

    Args:
        pipe: the emoji teacher, from `load_pipeline`; it is left as it is.
        repeats: iterations of each.
        batch_size: prompts an iteration; each gives a student sample in every window.
        substeps: teacher steps a window.

    Returns:
        The report. A student sample is one prompt in one window.
    """
    batch, empty = _batch(pipe, batch_size)
    windows = TimeWindows.from_grid(rectified_grid(NUM_WINDOWS, pipe.scheduler.config.shift))
    solve = Solve(substeps, pipe.scheduler.config.shift)
    starts = {PERFLOW: interpolated_starts, OTA: authentic_starts}
    tasks = {
        name: _iteration(pipe, start, batch, empty, windows, solve)
        for name, start in starts.items()
    }
    samples = batch_size * NUM_WINDOWS
    timings = [
        Timing(timing.name, tuple(seconds / samples for seconds in timing.seconds))
        for timing in interleave(tasks, repeats)
    ]
    median = {timing.name: timing.median for timing in timings}
    ratio = Ratio("OTA / PeRFlow", median[OTA] / median[PERFLOW], at_most=1.10)
    title = (
        f"Training on {pipe.device}, per student sample: {NUM_WINDOWS} windows of {substeps} guided"
        f" teacher steps, batch {batch_size}, LoRA of rank {RANK}"
    )
    return BenchReport(title, tuple(timings), (ratio,))


def _batch(pipe: Any, size: int) -> tuple[Batch, Any]:
    """Encoded scenes with their captions, noise and times, and the empty prompt's condition."""
    from flowsteer.emoji.batches import fill_bank
    from flowsteer.models import encode_prompts, encode_tokens

    bank = fill_bank(pipe.vae, pipe.tokenizer, size, seed=0, captions=1)
    generator = torch.Generator().manual_seed(0)
    eps = torch.randn(bank.latents.shape, generator=generator)
    depths = torch.rand(NUM_WINDOWS, size, generator=generator)
    with torch.no_grad():
        cond = encode_tokens([pipe.text_encoder, pipe.text_encoder_2], bank.ids[0].long())
    device = pipe.device
    batch = Batch(eps.to(device), depths.to(device), cond, bank.latents.float())
    return batch, encode_prompts(pipe, [""])


def _iteration(
    pipe: Any, start: Start, batch: Batch, empty: Any, windows: TimeWindows, solve: Solve
) -> Callable[[], None]:
    """One training iteration but for the optimiser's step, which is the same for all."""
    from flowsteer.loading import pipeline_info
    from flowsteer.models import SD3Field
    from flowsteer.models.lora import add_lora

    network = copy.deepcopy(pipe.transformer)
    add_lora(network, RANK)
    student = SD3Field(network)
    scale = torch.full((len(batch.eps),), pipeline_info(pipe).guidance_scale, device=pipe.device)
    teacher = guided(SD3Field(pipe.transformer), scale, empty)

    def iterate() -> None:
        total: Tensor | float = 0.0
        segments = start(teacher, batch, windows, solve)
        for segment, depths in zip(segments, batch.depths, strict=True):
            loss = window_velocity_loss(student, segment, depths, batch.cond)
            (loss / windows.num_windows).backward()
            total = total + loss.detach()
        network.zero_grad()
        float(total)  # wait for a GPU

    return iterate
