"""Pictures from prompts and seeds: the loop that the commands, the app and notebooks share."""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from flowsteer.families import check_drawn
from flowsteer.locks import TURN
from flowsteer.noise import initial_noise, latent_shape
from flowsteer.pipeline_info import pipeline_info
from flowsteer.scheduling import call_scheduler, stock_sigmas, unshifted_sigmas
from flowsteer.settings import Settings, check_settings_fit
from flowsteer.validation import check_prompts, check_seed

__all__ = [
    "GenerationStopped",
    "OnStep",
    "Picture",
    "PromptEmbeds",
    "Sample",
    "Settings",
    "check_settings_fit",
    "decode",
    "encode",
    "generate",
    "initial_noise",
    "latent_shape",
    "sample",
    "stream_pictures",
]

OnStep = Callable[[int, float, Tensor], None]
"""Called after step i (from 0) with the sigma reached and the states (b, c, h, w)."""


@dataclass(frozen=True)
class Picture:
    """One picture and how it came about.

    Args:
        prompt: as it was given.
        seed: of its noise.
        settings: complete, as used.
        image: the picture.
        latents: final latents (c, h, w), float32 on the CPU.
        sigmas: the grid (N + 1,), from 1 to 0.
        nfe: network calls.
        seconds: wall time; in a batch, an equal share of the batch's.
        grid_mismatch: whether the grid lacks edges of the student's.
        model: name of the model.
    """

    prompt: str
    seed: int
    settings: Settings
    image: Image.Image = field(repr=False)
    latents: Tensor = field(repr=False)
    sigmas: tuple[float, ...]
    nfe: int
    seconds: float
    grid_mismatch: bool = False
    model: str = "emoji"


class PromptEmbeds(NamedTuple):
    """Encoded prompts, with the empty prompt beside them for guidance."""

    prompt: Tensor  # (b, l, c)
    negative: Tensor | None  # (b, l, c)
    pooled: Tensor  # (b, p)
    negative_pooled: Tensor | None  # (b, p)


class Sample(NamedTuple):
    """What sampling arrives at."""

    latents: Tensor  # (b, c, h, w), on the pipeline's device
    sigmas: tuple[float, ...]  # (N + 1,)
    nfe: int
    grid_mismatch: bool


class GenerationStopped(Exception):
    """Raised inside a sampling loop when `should_stop` says so."""


@torch.no_grad()
def encode(pipe: Any, prompts: Sequence[str], guided: bool = True) -> PromptEmbeds:
    """Encode prompts once, for any number of samples; one thread at a time.

    Args:
        pipe: a StableDiffusion3Pipeline.
        prompts: b of them.
        guided: whether to encode the empty prompt as well.

    Raises:
        ValueError: if `pipe` is of another kind.
    """
    check_drawn(pipe)
    with TURN:
        embeds = pipe.encode_prompt(
            prompt=list(prompts), prompt_2=None, prompt_3=None, do_classifier_free_guidance=guided
        )
    return PromptEmbeds(*embeds)


@torch.no_grad()
def sample(
    pipe: Any,
    embeds: PromptEmbeds,
    noise: Tensor,
    settings: Settings,
    on_step: OnStep | None = None,
    should_stop: Callable[[], bool] | None = None,
    grid: Sequence[float] | None = None,
) -> Sample:
    """Integrate from noise (b, c, h, w) to latents through the pipeline's own call.

    The call is that of a twin with a scheduler of its own, so that threads may share a pipeline
    and `pipe` stays as it is.

    Args:
        pipe: from `load_pipeline`.
        embeds: b prompts from `encode`; with the empty one if the settings guide.
        noise: (b, c, h, w).
        settings: completed here where they are not.
        on_step: called after every step.
        should_stop: asked after every step.
        grid: times (N + 1,) from 1 to 0, as after the shift, in place of the settings' own grid;
            for a model without dynamic shift.

    Raises:
        ValueError: if a setting is out of range, or the grid lacks an edge of the student's.
        GenerationStopped: when `should_stop()` is true after a step.
    """
    settings = settings.resolve(pipe)
    steps, scale = settings.numbers()
    sigmas_given = stock_sigmas(pipe, steps) if settings.scheduler == "stock" else None
    if grid is not None:
        steps, sigmas_given = len(grid) - 1, unshifted_sigmas(pipe, grid)

    def after_step(pipe: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if on_step is not None:
            on_step(index, float(pipe.scheduler.sigmas[index + 1]), tensors["latents"])
        if should_stop is not None and should_stop():
            raise GenerationStopped
        return {}

    twin = _twin(pipe, settings)
    with _moving(pipe):
        latents = twin(
            num_inference_steps=steps,
            sigmas=sigmas_given,
            guidance_scale=scale,
            latents=noise,
            prompt_embeds=embeds.prompt,
            negative_prompt_embeds=embeds.negative,
            pooled_prompt_embeds=embeds.pooled,
            negative_pooled_prompt_embeds=embeds.negative_pooled,
            output_type="latent",
            callback_on_step_end=after_step,
        ).images
    sigmas = tuple(twin.scheduler.sigmas.tolist())
    student = pipeline_info(pipe).student
    mismatch = student is not None and not student.info.fits(sigmas)
    return Sample(latents, sigmas, steps * (2 if scale > 1 else 1), mismatch)


@torch.no_grad()
def decode(pipe: Any, latents: Tensor) -> list[Image.Image]:
    """Latents (b, c, h, w) to pictures, as StableDiffusion3Pipeline decodes them."""
    config = pipe.vae.config
    latents = latents.to(pipe.vae.device, pipe.vae.dtype)
    latents = latents / config.scaling_factor + config.shift_factor
    with _moving(pipe):
        images = pipe.vae.decode(latents, return_dict=False)[0]
    return pipe.image_processor.postprocess(images, output_type="pil")


def stream_pictures(
    pipe: Any,
    prompts: str | Sequence[str],
    seeds: int | Sequence[int] = 0,
    settings: Settings | None = None,
    batch_size: int = 1,
    should_stop: Callable[[], bool] | None = None,
) -> Iterator[Picture]:
    """Pictures as they get ready: for each prompt, one a seed.

    All input is checked before the first network call. Noise depends on the seed alone. With a
    batch size of 1 pictures are equal to the last bit whatever else is asked for; larger batches
    may differ in the last digits of a float.

    Args:
        pipe: from `load_pipeline`.
        prompts: one or more.
        seeds: one or more, used for every prompt.
        settings: None takes the pipeline's defaults.
        batch_size: pictures made at once.
        should_stop: asked after every step; when true, the stream ends.

    Raises:
        ValueError: if an argument is out of range, or `pipe` is of another family.
    """
    check_drawn(pipe)
    texts = check_prompts(prompts)
    numbers = [check_seed(seed) for seed in (seeds if isinstance(seeds, Sequence) else [seeds])]
    if batch_size < 1:
        raise ValueError(f"batch_size = {batch_size} must be at least 1")
    complete = (settings or Settings()).resolve(pipe)
    check_settings_fit(pipe, complete)
    jobs = [(text, seed) for text in texts for seed in numbers]
    batches = [jobs[i : i + batch_size] for i in range(0, len(jobs), batch_size)]
    return _stream(pipe, batches, complete, should_stop)


def generate(
    pipe: Any,
    prompts: str | Sequence[str],
    seeds: int | Sequence[int] = 0,
    settings: Settings | None = None,
    batch_size: int = 1,
) -> list[Picture]:
    """All pictures of `stream_pictures` in one list, prompt by prompt.

    Raises:
        ValueError: if an argument is out of range.
    """
    return list(stream_pictures(pipe, prompts, seeds, settings, batch_size))


def _stream(
    pipe: Any,
    batches: list[list[tuple[str, int]]],
    settings: Settings,
    should_stop: Callable[[], bool] | None,
) -> Iterator[Picture]:
    shape = latent_shape(pipe)
    info = pipeline_info(pipe)
    _, scale = settings.numbers()
    for batch in batches:
        start = time.perf_counter()
        noise = torch.stack([initial_noise(seed, shape) for _, seed in batch])
        try:
            embeds = encode(pipe, [text for text, _ in batch], scale > 1)
            result = sample(pipe, embeds, noise, settings, should_stop=should_stop)
        except GenerationStopped:
            return
        images = decode(pipe, result.latents)
        finals = result.latents.float().cpu()
        seconds = (time.perf_counter() - start) / len(batch)
        for (text, seed), image, latents in zip(batch, images, finals, strict=True):
            yield Picture(
                prompt=text,
                seed=seed,
                settings=settings,
                image=image,
                latents=latents,
                sigmas=result.sigmas,
                nfe=result.nfe,
                seconds=seconds,
                grid_mismatch=result.grid_mismatch,
                model=info.model,
            )


def _twin(pipe: Any, settings: Settings) -> Any:
    """The pipeline for one call: the same networks, but a scheduler and attributes of its own."""
    twin = copy.copy(pipe)
    twin.scheduler = call_scheduler(pipe, settings.allow_grid_mismatch)
    return twin


def _moving(pipe: Any) -> contextlib.AbstractContextManager[Any]:
    """A turn of one's own where networks come and go, as `enable_model_cpu_offload` makes them."""
    return TURN if hasattr(pipe.transformer, "_hf_hook") else contextlib.nullcontext()
