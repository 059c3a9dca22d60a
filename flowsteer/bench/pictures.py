"""How long one picture takes, whole and part by part."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from flowsteer.bench.report import BenchReport, Ratio, interleave

PROMPT = "a 3d koala left of a flat pizza on a pink background"


def bench_generate(teacher: Any, student: Any, repeats: int = 7) -> BenchReport:
    """A 4x1 student against its 28x2 teacher, whole `pipe()` calls, and each against its parts.

    Args:
        teacher: pipeline from `load_pipeline`.
        student: pipeline of its student.
        repeats: runs of each.
    """
    tasks: dict[str, Callable[[], object]] = {}
    for name, pipe, steps in (("teacher 28x2", teacher, 28), ("student 4x1", student, 4)):
        for part, task in _generation_tasks(pipe, steps).items():
            tasks[f"{name}, {part}"] = task
    timings = interleave(tasks, repeats)
    median = {timing.name: timing.median for timing in timings}
    ratios = [
        Ratio(
            "teacher 28x2 / student 4x1",
            median["teacher 28x2, whole call"] / median["student 4x1, whole call"],
            at_least=6.0,
        )
    ]
    for name in ("teacher 28x2", "student 4x1"):
        parts = sum(median[f"{name}, {part}"] for part in ("text", "calls", "decode"))
        ratio = median[f"{name}, whole call"] / parts
        ratios.append(Ratio(f"{name}: whole call / sum of its parts", ratio, at_most=1.15))
    threads = f"{torch.get_num_threads()} threads"
    return BenchReport(f"One picture on {teacher.device}, {threads}", tuple(timings), tuple(ratios))


def _generation_tasks(pipe: Any, steps: int) -> dict[str, Callable[[], object]]:
    """The whole call, and text, network calls and decoding alone."""
    from flowsteer.generation import decode, encode, initial_noise, latent_shape
    from flowsteer.loading import pipeline_info

    info = pipeline_info(pipe)
    scale = 1.0 if steps == 4 else info.guidance_scale
    guided = scale > 1
    noise = initial_noise(0, latent_shape(pipe))[None].to(pipe.device, pipe.transformer.dtype)
    embeds = encode(pipe, [PROMPT], guided)
    rows = 2 if guided else 1  # shapes count for the time, values do not
    inputs = {
        "hidden_states": torch.cat([noise] * rows),
        "encoder_hidden_states": torch.cat([embeds.prompt] * rows),
        "pooled_projections": torch.cat([embeds.pooled] * rows),
        "timestep": torch.full((rows,), 500.0, device=pipe.device),
    }

    def whole() -> None:
        pipe(PROMPT, num_inference_steps=steps, guidance_scale=scale, latents=noise)

    @torch.no_grad()
    def calls() -> None:
        for _ in range(steps):
            pipe.transformer(**inputs, return_dict=False)
        noise.sum().item()  # wait for a GPU

    return {
        "whole call": whole,
        "text": lambda: encode(pipe, [PROMPT], guided),
        "calls": calls,
        "decode": lambda: decode(pipe, noise),
    }
