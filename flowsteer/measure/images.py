"""Distances between pictures, pixel by pixel."""

from __future__ import annotations

import torch
from torch import Tensor


def psnr(images: Tensor, references: Tensor) -> float:
    """Peak signal-to-noise ratio in dB: the mean over pictures of each picture's own.

    Args:
        images: (b, c, h, w) in [-1, 1]; values outside are clamped, as saving them would.
        references: (b, c, h, w) in [-1, 1].

    Returns:
        ``mean_i 10 log10(2^2 / mse_i)``, infinite if a picture equals its reference.

    Raises:
        ValueError: if the shapes differ, are not of four dimensions, or hold no picture.
    """
    if images.shape != references.shape or images.ndim != 4 or len(images) == 0:
        raise ValueError(
            f"shapes {tuple(images.shape)} and {tuple(references.shape)} must be equal and "
            "(b, c, h, w) with b of at least 1"
        )
    error = images.detach().double().clamp(-1, 1) - references.detach().double().clamp(-1, 1)
    mean_square = error.square().flatten(1).mean(dim=1)  # (b,)
    return float((10 * torch.log10(4 / mean_square)).mean())
