"""Are two sets of points drawn from one distribution? The energy distance and its permutation test.

It makes no assumption on the distributions and is unbiased: for two samples of one distribution
it is 0 on average, however few the points are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

SHUFFLES = 999
LEVEL = 0.01  # and not 0.05, since a path has many edges and each is tested


@dataclass(frozen=True)
class EnergyTest:
    """An energy distance, and what chance alone makes of it.

    Attributes:
        distance: of the two sets; about 0 if they are alike, and then as often below as above.
        floor: 99% of random splits of the same points stay below it.
        p_value: share of such splits that are at least as far apart.
    """

    distance: float
    floor: float
    p_value: float

    @property
    def differs(self) -> bool:
        """Whether chance makes such a distance in at most one case of a hundred."""
        return self.p_value <= LEVEL

    def __str__(self) -> str:
        """Distance, floor and p, and what they say."""
        verdict = "differ" if self.differs else "no difference seen"
        return f"{self.distance:.4f} (floor {self.floor:.4f}, p = {self.p_value:.3f}: {verdict})"


def energy_distance(a: Tensor, b: Tensor) -> float:
    """Energy distance of two sets (Szekely and Rizzo 2013), as a share of the points' distance.

        (2 E|a - b| - E|a - a'| - E|b - b'|) / (2 E|a - b|)

    over distinct points a, a' of one set and b, b' of the other. Neither a scale common to both nor
    a rotation changes it; for two sets that lie infinitely far apart it is 1.

    Args:
        a: (n, *d) points, each drawn independently of all others in both sets.
        b: (m, *d) points.

    Raises:
        ValueError: if the shapes differ beyond the batch, a set has fewer than 2 points, or a value
            is not finite.
    """
    distances = _distances(a, b)
    return float(_energies(distances, _first(len(a), len(distances)))[0])


def energy_test(a: Tensor, b: Tensor, shuffles: int = SHUFFLES, seed: int = 0) -> EnergyTest:
    """The energy distance, held against random splits of all points into two such sets.

    Arguments and errors as in `energy_distance`; the points of the two sets must not be pairs.

    Args:
        a: (n, *d) points.
        b: (m, *d) points.
        shuffles: how many splits, at least 1.
        seed: of the splits.

    Raises:
        ValueError: also if `shuffles` is below 1.
    """
    if shuffles < 1:
        raise ValueError(f"shuffles = {shuffles} must be at least 1")
    distances = _distances(a, b)
    count = len(distances)
    generator = torch.Generator().manual_seed(seed)
    order = torch.rand(shuffles, count, generator=generator).argsort(1)
    in_a = _first(len(a), count).expand(shuffles, -1).gather(1, order)
    found = _energies(distances, _first(len(a), count))[0]
    chance = _energies(distances, in_a)
    # the split as it is counts as one of the random ones, or p could be 0
    p_value = (1 + int((chance >= found).sum())) / (1 + shuffles)
    return EnergyTest(float(found), float(chance.quantile(1 - LEVEL)), p_value)


def _distances(a: Tensor, b: Tensor) -> Tensor:
    """Distances (n + m, n + m) between all points, float64."""
    if a.shape[1:] != b.shape[1:] or min(len(a), len(b)) < 2:
        raise ValueError(
            f"sets of shapes {tuple(a.shape)} and {tuple(b.shape)} do not compare; give (n, *d) and"
            " (m, *d) with at least 2 points each"
        )
    points = torch.cat([a, b]).detach().flatten(1).double().cpu()
    if not bool(torch.isfinite(points).all()):
        raise ValueError("points hold NaN or infinity; check the run that they came from")
    return torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")


def _first(n: int, count: int) -> Tensor:
    """(1, count) marks, 1 for the first n."""
    return (torch.arange(count) < n).double()[None]


def _energies(distances: Tensor, in_a: Tensor) -> Tensor:
    """Energy distance for each row of marks (s, n + m): (s,)."""
    in_b = 1 - in_a
    n, m = in_a[0].sum(), in_b[0].sum()
    from_a, from_b = in_a @ distances, in_b @ distances  # (s, n + m): summed distances to a set
    across = 2 * (from_a * in_b).sum(1) / (n * m)
    within_a = (from_a * in_a).sum(1) / (n * (n - 1))  # the diagonal is 0
    within_b = (from_b * in_b).sum(1) / (m * (m - 1))
    return torch.where(across > 0, (across - within_a - within_b) / across, 0.0)
