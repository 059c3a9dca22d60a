"""Noise that depends on nothing but its seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from flowsteer.validation import check_seed


def initial_noise(seed: int, shape: Sequence[int]) -> Tensor:
    """Standard normal noise, drawn in float32 on the CPU with one generator a seed.

    Args:
        seed: 0 to 2**32 - 1.
        shape: of the noise, such as (c, h, w) for one picture.

    Raises:
        ValueError: if the seed is out of range.
    """
    generator = torch.Generator("cpu").manual_seed(check_seed(seed))
    return torch.randn(tuple(shape), generator=generator, dtype=torch.float32)


def latent_shape(pipe: Any) -> tuple[int, int, int]:
    """(c, h, w) of a diffusers pipeline's latents at its own picture size."""
    size = pipe.default_sample_size
    return pipe.transformer.config.in_channels, size, size
