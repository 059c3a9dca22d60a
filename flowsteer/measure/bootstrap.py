"""Means with the intervals that say how far to trust them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor

RESAMPLES = 10_000
_RESAMPLES_AT_ONCE = 500  # bounds the memory of a resampling to 500 x n indices


@dataclass(frozen=True)
class Interval:
    """A mean and the ends of its confidence interval."""

    mean: float
    low: float
    high: float

    def excludes(self, value: float) -> bool:
        """Whether value lies outside the interval."""
        return not self.low <= value <= self.high

    def __str__(self) -> str:
        """Mean and ends, to three places."""
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def wilson_interval(successes: int, trials: int, confidence: float = 0.95) -> Interval:
    """Wilson's score interval for a proportion (Wilson 1927), good near 0 and 1 and for few trials.

    Raises:
        ValueError: if trials < 1, successes is outside [0, trials], or confidence outside (0, 1).
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(
            f"{successes} successes in {trials} trials; give 0 <= successes <= trials, trials >= 1"
        )
    z = NormalDist().inv_cdf(0.5 + _checked(confidence) / 2)
    p, shrink = successes / trials, 1 + z * z / trials
    centre = (p + z * z / (2 * trials)) / shrink
    radius = z / shrink * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials * trials))
    # At 0 and at n the formula touches the end exactly; rounding must not move it past the mean.
    low = 0.0 if successes == 0 else centre - radius
    high = 1.0 if successes == trials else centre + radius
    return Interval(p, low, high)


def mean_interval(
    values: Tensor | Sequence[float],
    confidence: float = 0.95,
    num_resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Mean of (n,) values with its percentile bootstrap interval (Efron 1979).

    Raises:
        ValueError: if values is empty, not one-dimensional or not finite.
    """
    return stratified_interval([values], confidence, num_resamples, seed)


def stratified_interval(
    groups: Sequence[Tensor | Sequence[float]],
    confidence: float = 0.95,
    num_resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Mean of the groups' means, each group resampled within itself.

    Every group weighs the same however many values it holds, as in a benchmark whose score is
    the mean over its tasks.

    Raises:
        ValueError: if there is no group, or one is empty, not one-dimensional or not finite.
    """
    if len(groups) == 0:
        raise ValueError("no groups given; give at least one")
    tensors = [_vector(group) for group in groups]
    generator = torch.Generator().manual_seed(seed)
    resampled = torch.stack([_resampled_means(g, num_resamples, generator) for g in tensors])
    mean = float(torch.stack([g.mean() for g in tensors]).mean())
    return _percentiles(mean, resampled.mean(dim=0), confidence)


def paired_bootstrap(
    a: Tensor | Sequence[float],
    b: Tensor | Sequence[float],
    confidence: float = 0.95,
    num_resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Difference ``mean(a) - mean(b)`` of two systems on the same prompts, with its interval.

    Prompts are resampled, never the two systems apart, so what is hard for both cancels. The
    difference is real at this confidence when the interval excludes 0.

    Args:
        a: (n,) scores of one system, numbers or truth values.
        b: (n,) scores of the other, in the same order of prompts.
        confidence: share of resamplings inside the interval.
        num_resamples: how many resamplings.
        seed: of the resampling.

    Raises:
        ValueError: if the lengths differ, or the scores are empty or not finite.
    """
    first, second = _vector(a), _vector(b)
    if len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} scores; a pair needs one of each")
    return mean_interval(first - second, confidence, num_resamples, seed)


def _vector(values: Tensor | Sequence[float]) -> Tensor:
    vector = torch.as_tensor(values).detach().double().cpu()
    if vector.ndim != 1 or len(vector) == 0:
        raise ValueError(f"values have shape {tuple(vector.shape)}; give (n,) with n of at least 1")
    if not bool(torch.isfinite(vector).all()):
        raise ValueError("values hold NaN or infinity; leave out the runs that failed, and say so")
    return vector


def _resampled_means(values: Tensor, num_resamples: int, generator: torch.Generator) -> Tensor:
    if num_resamples < 1:
        raise ValueError(f"num_resamples is {num_resamples}; give at least 1")
    means = []
    for start in range(0, num_resamples, _RESAMPLES_AT_ONCE):
        rows = min(_RESAMPLES_AT_ONCE, num_resamples - start)
        index = torch.randint(len(values), (rows, len(values)), generator=generator)
        means.append(values[index].mean(dim=1))
    return torch.cat(means)


def _percentiles(mean: float, resampled: Tensor, confidence: float) -> Interval:
    tail = (1 - _checked(confidence)) / 2
    ends = torch.quantile(resampled, torch.tensor([tail, 1 - tail], dtype=resampled.dtype))
    return Interval(mean, float(ends[0]), float(ends[1]))


def _checked(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; give a number between 0 and 1, such as 0.95")
    return confidence
