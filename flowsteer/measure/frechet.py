"""Frechet distance between two sets of features (Heusel et al. 2017, arXiv 1706.08500)."""

from __future__ import annotations

import torch
from torch import Tensor


def frechet_distance(features_a: Tensor, features_b: Tensor) -> float:
    """Squared Frechet distance between Gaussians fitted to two sets of features.

    Args:
        features_a: (n, d) features of one set of pictures.
        features_b: (m, d) features of the other.

    Returns:
        ``|mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2))``, at least 0. Like FID, it falls
        as n and m grow, so compare only figures taken with the same numbers of pictures.

    Raises:
        ValueError: if a set is no (n >= 2, d) matrix, the widths differ, or a value is not finite.
    """
    mean_a, covariance_a = moments(features_a)
    mean_b, covariance_b = moments(features_b)
    return frechet_from_moments(mean_a, covariance_a, mean_b, covariance_b)


def frechet_from_moments(
    mean_a: Tensor, covariance_a: Tensor, mean_b: Tensor, covariance_b: Tensor
) -> float:
    """Squared Frechet distance between N(mean_a, covariance_a) and N(mean_b, covariance_b).

    Means are (d,), covariances (d, d). Computed in float64. The trace of the square root is that
    of the symmetric ``A^(1/2) B A^(1/2)``, whose eigenvalues are real and not negative, so no
    imaginary rounding residue has to be dropped.

    Raises:
        ValueError: if the dimensions differ.
    """
    if mean_a.shape != mean_b.shape:
        raise ValueError(
            f"the features have widths {mean_a.shape[0]} and {mean_b.shape[0]}; "
            "take both from the same network"
        )
    a, b = covariance_a.double(), covariance_b.double()
    root_a = _symmetric_root(a)
    cross = torch.linalg.eigvalsh(root_a @ b @ root_a).clamp(min=0).sqrt().sum()
    shift = (mean_a.double() - mean_b.double()).square().sum()
    return max(float(shift + a.trace() + b.trace() - 2 * cross), 0.0)


def moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (d,) and unbiased covariance (d, d) of (n, d) features, in float64 on the CPU.

    Raises:
        ValueError: if features is no (n >= 2, d) matrix or holds a value that is not finite.
    """
    if features.ndim != 2 or features.shape[0] < 2:
        raise ValueError(
            f"features have shape {tuple(features.shape)}; give (n, d) with n of at least 2"
        )
    features = features.detach().double().cpu()
    if not bool(torch.isfinite(features).all()):
        raise ValueError("features hold NaN or infinity; check the pictures they came from")
    mean = features.mean(0)
    centred = features - mean
    return mean, centred.mT @ centred / (features.shape[0] - 1)


def _symmetric_root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.mT
