"""How far a student's latents are from the teacher's."""

from __future__ import annotations

import torch
from torch import Tensor


def relative_l2(x: Tensor, reference: Tensor) -> Tensor:
    """Distance of each sample to its reference, in units of the reference's norm.

    Args:
        x: (b, *d) samples, such as a student's final latents.
        reference: (b, *d) what they should be, such as the teacher's from the same noise.

    Returns:
        (b,) float64, ``||x - reference|| / ||reference||``; infinite where the reference is 0 and
        x is not, and 0 where both are.

    Raises:
        ValueError: if the shapes differ or there is no batch dimension.
    """
    if x.shape != reference.shape or x.ndim == 0:
        raise ValueError(
            f"shapes {tuple(x.shape)} and {tuple(reference.shape)} must be equal and begin with "
            "the batch"
        )
    x, reference = x.detach().double(), reference.detach().double()
    # One number a sample is a batch too: (b,) has norms |x|.
    error = (x - reference).reshape(len(x), -1).norm(dim=1)
    scale = reference.reshape(len(x), -1).norm(dim=1)
    return torch.where(error == 0, torch.zeros_like(error), error / scale)
