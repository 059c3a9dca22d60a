"""Numbered batches of scenes and captions, for the recipes."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import lru_cache

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from transformers import CLIPTokenizer

from flowsteer.emoji.art import load_art
from flowsteer.emoji.captions import caption
from flowsteer.emoji.concepts import load_concepts
from flowsteer.emoji.pipeline import LATENT_SHAPE, MAX_TOKENS
from flowsteer.emoji.render import Renderer, SceneTensors, pack_scenes
from flowsteer.emoji.scenes import Scene, World, draw_scene
from flowsteer.emoji.words import normalize_prompt
from flowsteer.models.autoencoder import encode_pictures
from flowsteer.training.data import NumberedBatches
from flowsteer.training.sources import Drawn, Encode, vae_encoder


@dataclass(frozen=True)
class SceneBatch:
    """Makes batch number n: scenes, and token ids of `captions` captions for each.

    Args:
        batch_size: scenes a batch.
        seed: of the run; batches of two seeds share no scene.
        tokenizer: None leaves the captions out.
        captions: different captions drawn for each scene.
    """

    batch_size: int
    seed: int
    tokenizer: CLIPTokenizer | None = None
    captions: int = 1

    def __call__(self, index: int) -> tuple[SceneTensors, Tensor]:
        """Packed scenes and ids (captions, batch, 31), empty without a tokenizer."""
        rng = random.Random(f"{self.seed}/{index}")
        concepts = load_art().concepts
        world = World(len(concepts), training=True)
        scenes = [draw_scene(rng, world) for _ in range(self.batch_size)]
        if self.tokenizer is None:
            return pack_scenes(scenes), torch.empty(0)
        texts = [caption(s, rng, concepts) for _ in range(self.captions) for s in scenes]
        ids = tokenize(self.tokenizer, texts)
        return pack_scenes(scenes), ids.view(self.captions, self.batch_size, MAX_TOKENS)


@dataclass(frozen=True)
class CaptionSource:
    """Captions of training scenes, for methods that need no pictures; no two samples are one."""

    seed: int

    def __call__(self, numbers: range) -> Drawn:
        """Normalised captions of samples `numbers`."""
        return Drawn([_sample(self.seed, number)[1] for number in numbers])


@dataclass(frozen=True)
class SceneSource:
    """The captions of `CaptionSource` with their scenes; `scene_encoder` draws and encodes these.

    A scene travels as 27 numbers, so that drawing pictures is left to the training device.
    """

    seed: int

    def __call__(self, numbers: range) -> Drawn:
        """Normalised captions and packed scenes of samples `numbers`."""
        samples = [_sample(self.seed, number) for number in numbers]
        scenes = pack_scenes([scene for scene, _ in samples])
        return Drawn([text for _, text in samples], scenes)


def _sample(seed: int, number: int) -> tuple[Scene, str]:
    """A training scene and its normalised caption."""
    rng = random.Random(f"captions/{seed}/{number}")
    concepts = load_concepts()
    scene = draw_scene(rng, _training_world())
    return scene, normalize_prompt(caption(scene, rng, concepts))


@lru_cache(maxsize=1)
def _training_world() -> World:
    return World(len(load_concepts()), training=True)


def scene_encoder(vae: AutoencoderKL, device: torch.device | str | None = None) -> Encode:
    """An `Encode` from packed scenes, which it draws first.

    Args:
        vae: the autoencoder; latents come in float32, from its own precision.
        device: where to draw; None means where the autoencoder is when first asked.
    """
    encode_pictures = vae_encoder(vae)

    @lru_cache(maxsize=1)
    def renderer() -> Renderer:
        return Renderer(load_art(), vae.device if device is None else device)

    def encode_scenes(scenes: SceneTensors) -> Tensor:
        return encode_pictures(renderer()(scenes))

    return encode_scenes


def tokenize(tokenizer: CLIPTokenizer, prompts: list[str]) -> Tensor:
    """Ids (n, 31) as the pipeline makes them, after `normalize_prompt`."""
    return tokenizer(
        [normalize_prompt(prompt) for prompt in prompts],
        padding="max_length",
        max_length=MAX_TOKENS,
        truncation=True,
        return_tensors="pt",
    ).input_ids


@dataclass(frozen=True)
class LatentBank:
    """Encoded scenes with their captions, held on the training device."""

    latents: Tensor  # (n, 16, 16, 16) bf16, normalised
    ids: Tensor  # (captions, n, 31) int16

    def __len__(self) -> int:
        return len(self.latents)

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """`count` random latents, float32, each with one of its captions' ids."""
        device = self.latents.device
        rows = torch.randint(len(self), (count,), generator=generator, device=device)
        which = torch.randint(len(self.ids), (count,), generator=generator, device=device)
        return self.latents[rows].float(), self.ids[which, rows].long()


@torch.no_grad()
def fill_bank(
    vae: AutoencoderKL,
    tokenizer: CLIPTokenizer,
    size: int,
    seed: int,
    num_workers: int = 0,
    captions: int = 2,
    batch_size: int = 1024,
) -> LatentBank:
    """Draw, render and encode `size` scenes on the autoencoder's device.

    Raises:
        ValueError: if `size` is not positive.
    """
    if size < 1:
        raise ValueError(f"scenes = {size} must be at least 1")
    device, batch_size = vae.device, min(batch_size, size)
    batches = NumberedBatches(SceneBatch(batch_size, seed, tokenizer, captions), num_workers)
    render = Renderer(load_art(), device)
    latents = torch.empty((size, *LATENT_SHAPE), dtype=torch.bfloat16, device=device)
    ids = torch.empty((captions, size, MAX_TOKENS), dtype=torch.int16, device=device)
    for index, low in enumerate(range(0, size, batch_size)):
        scenes, tokens = batches(index)
        high = min(low + batch_size, size)
        pictures = render(scenes.to(device))
        latents[low:high] = encode(vae, pictures)[: high - low]
        ids[:, low:high] = tokens[:, : high - low].to(device)
    return LatentBank(latents, ids)


def encode(vae: AutoencoderKL, pictures: Tensor) -> Tensor:
    """Pictures (b, 3, 128, 128) in [-1, 1] to normalised latents (b, 16, 16, 16), fast."""
    with torch.autocast(pictures.device.type, torch.bfloat16, enabled=pictures.is_cuda):
        return encode_pictures(vae, pictures)
