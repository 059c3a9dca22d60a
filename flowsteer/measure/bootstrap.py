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

    def ends(self, form: str = "[{:.3f}, {:.3f}]") -> str:
        """The ends, or n/a: answers that are all alike, such as a single one, tell no spread."""
        return "n/a" if self.low == self.high else form.format(self.low, self.high)

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


def crossed_interval(
    values: Tensor | Sequence[Sequence[float]],
    confidence: float = 0.95,
    num_resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Mean of the scores of s training runs on n prompts, with runs and prompts both resampled.

    Rows and columns are drawn independently and every pair of a row and a column drawn counts
    (Owen 2007, "The pigeonhole bootstrap"), so the interval holds both what another choice of
    prompts and what another training seed would change. With s rows the spread between seeds comes
    out too small by the factor sqrt(1 - 1/s), and one row tells nothing of it: its interval is over
    prompts alone.

    Args:
        values: (s, n) scores, a row for each run.
        confidence: share of resamplings inside the interval.
        num_resamples: how many resamplings.
        seed: of the resampling.

    Raises:
        ValueError: if values is empty, not two-dimensional or not finite.
    """
    scores = _matrix(values)
    runs, prompts = scores.shape
    generator = torch.Generator().manual_seed(seed)
    means = []
    for rows in _chunks(num_resamples):
        run = torch.randint(runs, (rows, runs), generator=generator)
        prompt = torch.randint(prompts, (rows, prompts), generator=generator)
        # a run drawn twice weighs twice: (rows, s) weights give (rows, n) means over the runs
        weights = torch.nn.functional.one_hot(run, runs).sum(1).double() / runs
        means.append((weights @ scores).gather(1, prompt).mean(dim=1))
    return _percentiles(float(scores.mean()), torch.cat(means), confidence)


def crossed_bootstrap(
    a: Tensor | Sequence[Sequence[float]],
    b: Tensor | Sequence[Sequence[float]],
    confidence: float = 0.95,
    num_resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Difference ``mean(a) - mean(b)`` of two systems over the same seeds and prompts.

    As `paired_bootstrap`, with the training seed as a second thing that pairs are drawn over.

    Args:
        a: (s, n) scores of one system: a row a training seed, a column a prompt.
        b: (s, n) scores of the other in the same order, or (1, n) of one that has no seeds, such
            as a teacher.
        confidence: share of resamplings inside the interval.
        num_resamples: how many resamplings.
        seed: of the resampling.

    Raises:
        ValueError: if the shapes do not pair, or the scores are empty or not finite.
    """
    first, second = _matrix(a), _matrix(b)
    if first.shape[1] != second.shape[1] or len(second) not in (1, len(first)):
        raise ValueError(
            f"scores of shapes {tuple(first.shape)} and {tuple(second.shape)} make no pairs; give "
            "as many prompts, and as many seeds or one"
        )
    return crossed_interval(first - second, confidence, num_resamples, seed)


def _matrix(values: Tensor | Sequence[Sequence[float]]) -> Tensor:
    matrix = torch.as_tensor(values).detach().double().cpu()
    if matrix.ndim != 2 or matrix.numel() == 0:
        raise ValueError(
            f"values have shape {tuple(matrix.shape)}; give (s, n), a row a run and a column a "
            "prompt"
        )
    _check_finite(matrix)
    return matrix


def _vector(values: Tensor | Sequence[float]) -> Tensor:
    vector = torch.as_tensor(values).detach().double().cpu()
    if vector.ndim != 1 or len(vector) == 0:
        raise ValueError(f"values have shape {tuple(vector.shape)}; give (n,) with n of at least 1")
    _check_finite(vector)
    return vector


def _check_finite(values: Tensor) -> None:
    if not bool(torch.isfinite(values).all()):
        raise ValueError("values hold NaN or infinity; leave out the runs that failed, and say so")


def _chunks(num_resamples: int) -> list[int]:
    """How many resamplings to make at once, in turn."""
    if num_resamples < 1:
        raise ValueError(f"num_resamples is {num_resamples}; give at least 1")
    whole, rest = divmod(num_resamples, _RESAMPLES_AT_ONCE)
    return [_RESAMPLES_AT_ONCE] * whole + [rest] * (rest > 0)


def _resampled_means(values: Tensor, num_resamples: int, generator: torch.Generator) -> Tensor:
    means = []
    for rows in _chunks(num_resamples):
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
