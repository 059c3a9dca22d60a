"""How far apart two sets of latents are as distributions."""

from __future__ import annotations

import torch
from torch import Tensor

from flowsteer.measure.frechet import frechet_from_moments, moments

DIRECTIONS = 64
_SAME = 1e-10  # of the largest variance: below it a direction holds rounding alone


def latent_distance(a: Tensor, b: Tensor, num_directions: int = DIRECTIONS) -> float:
    """Frechet distance in the leading directions, as a share of the variance there.

    Latents of a picture have thousands of dimensions, far more than there are pictures, so both
    sets are first projected on the directions in which the two together vary most (principal
    components; in noisy states those that show the picture). There a Gaussian is fitted to each
    set:

        (|mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2))) / (tr(S_a + S_b) / 2).

    The division makes states at different times comparable. Like FID, the distance of two finite
    sets from one distribution is above 0 and falls as they grow: hold it against that of two sets
    known to be alike, of the same sizes.

    Args:
        a: (n, *d) latents.
        b: (m, *d) latents, such as the teacher's at the same time.
        num_directions: how many to keep, of at most n + m - 1.

    Returns:
        At least 0; 0 for equal sets. Neither a scale common to both nor a rotation changes it.

    Raises:
        ValueError: if the shapes differ beyond the batch, a set has fewer than 2 samples, a value
            is not finite, or num_directions < 1.
    """
    if a.shape[1:] != b.shape[1:] or num_directions < 1:
        raise ValueError(
            f"latents of shapes {tuple(a.shape)} and {tuple(b.shape)} in {num_directions} "
            "directions do not compare; give (n, *d) and (m, *d), and at least 1 direction"
        )
    both = torch.cat([a, b]).detach().flatten(1).double()
    if not bool(torch.isfinite(both).all()):
        raise ValueError("latents hold NaN or infinity; check the run that they came from")
    both = both - both.mean(0)
    projected = _leading(both, num_directions)
    mean_a, covariance_a = moments(projected[: len(a)])
    mean_b, covariance_b = moments(projected[len(a) :])
    variance = float(covariance_a.trace() + covariance_b.trace()) / 2
    distance = frechet_from_moments(mean_a, covariance_a, mean_b, covariance_b)
    return distance / variance if variance > 0 else float(distance > 0)


def _leading(centred: Tensor, count: int) -> Tensor:
    """Principal coordinates (n, <= count) of centred samples (n, d).

    Taken from whichever of the two Gram matrices is smaller: with X = U s V^T the coordinates X V
    are U s too.
    """
    n, d = centred.shape
    small = centred @ centred.mT if n <= d else centred.mT @ centred
    values, vectors = torch.linalg.eigh(small)  # ascending
    kept = min(count, int((values > _SAME * values[-1]).sum()))
    values, vectors = values[len(values) - kept :], vectors[:, len(values) - kept :]
    return vectors * values.sqrt() if n <= d else centred @ vectors
