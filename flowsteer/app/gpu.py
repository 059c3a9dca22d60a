"""Work on the networks, in functions that a ZeroGPU Space can run in a process of its own.

There, `spaces.GPU` sends a function's arguments and result between two processes. So each function
takes and gives plain values, and finds the pipelines in a table of this module, which the other
process has a copy of. Everywhere else the decorator does nothing.
"""

from __future__ import annotations

import importlib
import itertools
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from PIL import Image

from flowsteer.comparing import Card, Column, PipelineSet, draw_card, prepare_column
from flowsteer.generation import PromptEmbeds, decode, encode, initial_noise, latent_shape, sample
from flowsteer.measure.distances import relative_l2
from flowsteer.paths import RecordedPath, record_path

Function = TypeVar("Function", bound=Callable[..., Any])
IS_LENT = os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true")
"""Whether a GPU is there only inside decorated functions."""
LARGEST_FRAME = 256  # pixels; many frames of a path are shown at once

ShouldStop = Callable[[], bool]


def on_gpu(function: Function) -> Function:
    """`spaces.GPU` on a ZeroGPU Space; elsewhere the function itself."""
    return importlib.import_module("spaces").GPU(function) if IS_LENT else function


_sets: dict[int, PipelineSet] = {}
_encoded: dict[int, tuple[str, PromptEmbeds]] = {}
_numbers = itertools.count()


def put_down(pipelines: PipelineSet) -> int:
    """Keep pipelines for the functions below; the number that stands for them."""
    number = next(_numbers)
    _sets[number] = pipelines
    return number


def clear(number: int) -> None:
    """Forget pipelines."""
    _sets.pop(number, None)
    _encoded.pop(number, None)


def callback(should_stop: ShouldStop) -> ShouldStop | None:
    """A callback for the functions below; none where it cannot follow them."""
    return None if IS_LENT else should_stop


@on_gpu
def draw(
    number: int, prompt: str, column: Column, seed: int, should_stop: ShouldStop | None = None
) -> Card:
    """One picture of a column.

    Raises:
        ValueError: if a setting does not fit the network.
        GenerationStopped: when `should_stop()` is true after a step.
    """
    pipelines = _sets[number]
    column, pipe = prepare_column(pipelines, column)
    embeds, noise = _encode_once(number, prompt), _noise(pipelines, seed)
    return replace(draw_card(column, pipe, embeds, noise, should_stop), seed=seed)


@on_gpu
def reach(
    number: int, prompt: str, column: Column, seed: int, should_stop: ShouldStop | None = None
) -> Any:
    """The final latents (c, h, w) of a column, float32 on the CPU, not decoded."""
    pipelines = _sets[number]
    column, pipe = prepare_column(pipelines, column)
    noise = _noise(pipelines, seed)[None]
    embeds = _encode_once(number, prompt)
    result = sample(pipe, embeds, noise, column.settings, should_stop=should_stop)
    return result.latents[0].float().cpu()


@on_gpu
def trace(
    number: int, prompt: str, column: Column, seed: int, should_stop: ShouldStop | None = None
) -> tuple[RecordedPath, list[Image.Image]]:
    """A column's path, and the picture that each of its calls points to."""
    pipelines = _sets[number]
    column, pipe = prepare_column(pipelines, column)
    noise = _noise(pipelines, seed)[None]
    path = record_path(pipe, _encode_once(number, prompt), noise, column.settings, should_stop)
    frames = []
    for guess in path.x0_hats:  # one by one: a large model's autoencoder needs much memory
        (frame,) = decode(pipe, guess)
        frame.thumbnail((LARGEST_FRAME, LARGEST_FRAME))
        frames.append(frame)
    return path, frames


@on_gpu
def draw_on_grid(
    number: int,
    prompt: str,
    column: Column,
    grid: Sequence[float],
    seed: int,
    should_stop: ShouldStop | None = None,
) -> tuple[Image.Image, Any]:
    """A picture on any grid, and its final latents (c, h, w)."""
    pipelines = _sets[number]
    column, pipe = prepare_column(pipelines, column)
    embeds, noise = _encode_once(number, prompt), _noise(pipelines, seed)[None]
    result = sample(pipe, embeds, noise, column.settings, should_stop=should_stop, grid=grid)
    return decode(pipe, result.latents)[0], result.latents[0].float().cpu()


def distance(latents: Any, reference: Any) -> float:
    """Relative L2 of latents (c, h, w)."""
    return relative_l2(latents[None], reference[None]).item()


def _noise(pipelines: PipelineSet, seed: int) -> Any:
    return initial_noise(seed, latent_shape(pipelines.teacher))


def _encode_once(number: int, prompt: str) -> PromptEmbeds:
    """A prompt's embeddings, kept until another prompt comes."""
    known = _encoded.get(number)
    if known is None or known[0] != prompt:
        known = _encoded[number] = (prompt, encode(_sets[number].teacher, [prompt]))
    return known[1]
