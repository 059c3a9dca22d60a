"""Where training samples come from: prompts alone, or captioned pictures and what encodes them.

Sample n of a run is a function of the seed and n alone, so that what is learnt from depends on
neither batch size nor number of processes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from accelerate import PartialState
from diffusers import AutoencoderKL
from torch import Tensor
from tqdm import tqdm

from flowsteer.models.autoencoder import encode_pictures
from flowsteer.training.captioned import captioned_pictures, read_picture, refuse
from flowsteer.training.data import NumberedBatches, seeded_generator
from flowsteer.validation import check_whole_number

MAX_SIZE = 8192
_PIXELS_AT_ONCE = 2**22  # four pictures of 1024 x 1024; SD3's encoder takes 1 GB for each


class Drawn(NamedTuple):
    """Some samples."""

    texts: list[str]
    pictures: Any = None  # whatever the source's `Encode` takes: tensors, or a NamedTuple of them


class Source(Protocol):
    """Draws samples; picklable, since it works in worker processes."""

    def __call__(self, numbers: range) -> Drawn:
        """Samples `numbers`, counted over the whole run."""
        ...


Encode = Callable[[Any], Tensor]
"""Pictures of `Drawn` -> normalised latents (b, c, h, w), float32, on the training device."""


@dataclass(frozen=True)
class PromptSource:
    """Prompts drawn from a list, with replacement.

    Raises:
        ValueError: if the list is empty.
    """

    texts: tuple[str, ...]
    seed: int

    def __post_init__(self) -> None:
        if not self.texts:
            raise ValueError("texts is empty; give at least one prompt to learn from")

    def __call__(self, numbers: range) -> Drawn:
        """Prompts of samples `numbers`."""
        draws = (random.Random(f"prompts/{self.seed}/{number}").random() for number in numbers)
        return Drawn([self.texts[int(draw * len(self.texts))] for draw in draws])


@dataclass(frozen=True)
class FolderSource:
    """Captioned pictures of a folder, laid out as `flowsteer.training.captioned` says.

    The samples go through all pictures in a random order, then again in another. A picture's short
    side is resized to `size` and its centre kept; what is transparent becomes white.

    Args:
        folder: subfolders count too. Where there is a metadata.jsonl, it alone says what is used;
            "caption" may stand for "text".
        seed: of the orders.
        size: side of the pictures in pixels.
        read: applied to every caption, such as `normalize_prompt` for the emoji model.

    Attributes:
        files: a path for each sample of the folder.
        texts: and its caption.

    Raises:
        ValueError: if there is no picture, a caption or picture is missing, or a file is no
            regular one, too large or not UTF-8. When called: if a picture is not readable.
    """

    folder: str | Path
    seed: int
    size: int
    read: Callable[[str], str] | None = None
    files: tuple[Path, ...] = field(init=False, repr=False)
    texts: tuple[str, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_whole_number("size", self.size, 1, MAX_SIZE)
        pairs = captioned_pictures(Path(self.folder))
        if self.read is not None:
            pairs = [(file, " ".join(self.read(text).split())) for file, text in pairs]
        refuse([file for file, text in pairs if not text], "has an empty caption; write one")
        object.__setattr__(self, "files", tuple(file for file, _ in pairs))
        object.__setattr__(self, "texts", tuple(text for _, text in pairs))

    def __call__(self, numbers: range) -> Drawn:
        """Captions and pictures (b, 3, size, size) in [-1, 1] of samples `numbers`."""
        rows = shuffled_rows(self.seed, numbers, len(self.files))
        pictures = torch.empty(len(rows), 3, self.size, self.size)
        for place, row in enumerate(rows):
            pictures[place] = read_picture(self.files[row], self.size)
        return Drawn([self.texts[row] for row in rows], pictures)


def shuffled_rows(seed: int, numbers: range, count: int) -> list[int]:
    """Which of `count` things samples `numbers` are: all in a random order, then in another."""
    return [int(_order(seed, number // count, count)[number % count]) for number in numbers]


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int) -> Tensor:
    return torch.randperm(count, generator=seeded_generator("cpu", seed, epoch, count))


def vae_encoder(vae: AutoencoderKL) -> Encode:
    """An `Encode` from pictures (b, 3, h, w) in [-1, 1], in the autoencoder's precision."""

    @torch.no_grad()
    def encode(pictures: Tensor) -> Tensor:
        at_once = max(1, _PIXELS_AT_ONCE // pictures[0, 0].numel())
        parts = [encode_pictures(vae, part).float() for part in pictures.split(at_once)]
        return torch.cat(parts)

    return encode


@dataclass(frozen=True)
class CachedSource:
    """The samples that `cached` has encoded, in random orders; their pictures are row numbers."""

    texts: tuple[str, ...]
    seed: int

    def __call__(self, numbers: range) -> Drawn:
        """Captions and rows (b,) of samples `numbers`."""
        rows = shuffled_rows(self.seed, numbers, len(self.texts))
        return Drawn([self.texts[row] for row in rows], torch.tensor(rows, dtype=torch.int64))


def cached(
    source: Source,
    encode: Encode,
    count: int,
    seed: int = 0,
    batch_size: int = 64,
    num_workers: int = 0,
) -> tuple[Source, Encode]:
    """Draw and encode samples 0 to count - 1 once, to go through them again and again.

    The latents are kept where `encode` puts them, as float16: normalised latents are far within
    its range, and it rounds them 8 times finer than bfloat16. Every process makes its own.

    Args:
        source: of pictures.
        encode: its pictures -> latents.
        count: samples to keep.
        seed: of the orders in which they are gone through.
        batch_size: samples encoded at once.
        num_workers: processes that draw.

    Returns:
        A source of the kept samples, with their `texts`, and its `Encode`.

    Raises:
        ValueError: if `count` is not positive, or the source has no pictures, or a latent is not
            finite.
    """
    if count < 1:
        raise ValueError(f"count = {count} must be at least 1: the samples to encode and keep")
    texts: list[str] = []
    kept = torch.empty(0)
    for drawn in _passes(source, count, min(batch_size, count), num_workers):
        if drawn.pictures is None:
            raise ValueError("the source has prompts alone; caching needs one with pictures")
        latents = encode(drawn.pictures)[: count - len(texts)].half()
        if not latents.isfinite().all():
            raise ValueError("the autoencoder gives values that are not finite; load it in float32")
        if not texts:
            kept = latents.new_empty((count, *latents.shape[1:]))
        kept[len(texts) : len(texts) + len(latents)] = latents
        texts += drawn.texts[: len(latents)]

    def look_up(rows: Tensor) -> Tensor:
        return kept[rows.to(kept.device)].float()

    return CachedSource(tuple(texts), seed), look_up


def _passes(source: Source, count: int, batch_size: int, num_workers: int) -> Iterator[Drawn]:
    """Batches of samples from 0, the last of which may go past `count`, under a progress bar."""
    batches = NumberedBatches(_Numbered(source, batch_size), num_workers)
    hidden = not PartialState().is_main_process
    with tqdm(
        total=count, desc="encode", unit="picture", dynamic_ncols=True, disable=hidden
    ) as bar:
        for index, low in enumerate(range(0, count, batch_size)):
            yield batches(index)
            bar.update(min(batch_size, count - low))


@dataclass(frozen=True)
class _Numbered:
    """Batches of a source by number; picklable."""

    source: Source
    batch_size: int

    def __call__(self, index: int) -> Drawn:
        return self.source(range(index * self.batch_size, (index + 1) * self.batch_size))
