"""Time windows: the pieces of [0, 1] that a few-step student crosses in one call each."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from flowsteer.flow.grids import format_grid


@dataclass(frozen=True)
class TimeWindows:
    """K windows between K + 1 edges. Window k runs from t_hi = e_k down to t_lo = e_{k+1}.

    An edge belongs to the window below it, the one that starts there: with edges
    (1, 0.75, 0.5, 0), t = 0.75 is in window 1. Every t in (0, 1] is in exactly one window.

    Attributes:
        edges: 1 = e_0 > e_1 > ... > e_K = 0, in shifted time; stored as a tuple of floats,
            whatever sequence is given.

    Raises:
        ValueError: if the edges do not fall strictly from 1 to 0.
    """

    edges: tuple[float, ...]

    def __post_init__(self) -> None:
        edges = tuple(float(e) for e in self.edges)
        falling = all(hi > lo for hi, lo in pairwise(edges))
        if len(edges) < 2 or edges[0] != 1 or edges[-1] != 0 or not falling:
            raise ValueError(
                f"window edges are {reprlib.repr(edges)}: they must fall strictly from 1 to 0"
            )
        object.__setattr__(self, "edges", edges)

    @classmethod
    def from_grid(cls, grid: Iterable[float] | Tensor) -> TimeWindows:
        """One window per step of a grid that falls from 1 to 0, shape (K + 1,)."""
        return cls(tuple(float(t) for t in grid))

    @property
    def num_windows(self) -> int:
        """K."""
        return len(self.edges) - 1

    def bounds(self, k: int) -> tuple[float, float]:
        """(t_hi, t_lo) of window k, 0 <= k < K.

        Raises:
            ValueError: if there is no window k.
        """
        if not 0 <= k < self.num_windows:
            raise ValueError(f"window {k} does not exist: give 0 to {self.num_windows - 1}")
        return self.edges[k], self.edges[k + 1]

    def locate(self, t: Tensor) -> Tensor:
        """Index of the window that holds each time.

        Args:
            t: times in (0, 1], any shape. Edges are rounded to its dtype before they are compared.

        Returns:
            int64, the shape of `t`.

        Raises:
            ValueError: if a time lies outside (0, 1].
        """
        if not bool(((t > 0) & (t <= 1)).all()):
            raise ValueError(f"times must lie in (0, 1], got {t.min():g} to {t.max():g}")
        inner = torch.tensor(self.edges[1:-1], dtype=t.dtype, device=t.device)
        return (t[..., None] <= inner).sum(-1)

    def missing_from(self, grid: Iterable[float] | Tensor, atol: float = 1e-4) -> tuple[float, ...]:
        """Return the edges that are no times of `grid`, to the four decimals that we print."""
        times = [float(t) for t in grid]
        return tuple(e for e in self.edges if all(abs(e - t) > atol for t in times))

    def contained_in(self, grid: Iterable[float] | Tensor, atol: float = 1e-4) -> bool:
        """Whether every edge is a time of `grid`, so that no step crosses an edge."""
        return not self.missing_from(grid, atol)

    def check_grid(self, grid: Iterable[float] | Tensor, atol: float = 1e-4) -> None:
        """Refuse a grid whose steps cross an edge.

        Raises:
            ValueError: naming the edges, the grid and what is missing.
        """
        grid = [float(t) for t in grid]
        if missing := self.missing_from(grid, atol):
            raise ValueError(
                f"the student was trained on windows with edges {format_grid(self.edges)}, but the "
                f"time grid {format_grid(grid)} misses {format_grid(missing)}: use a grid that "
                "contains every edge, or set allow_grid_mismatch"
            )

    def sample_times(
        self, generator: torch.Generator, k: int, batch: int, share_at_hi: float = 0.0
    ) -> Tensor:
        """Draw times in window k: evenly on (t_lo, t_hi], and at t_hi itself for a share.

        Args:
            generator: source of all randomness; the times are on its device.
            k: the window.
            batch: how many times to draw.
            share_at_hi: chance that a sample sits at t_hi, where inference asks; in [0, 1].

        Returns:
            float32, shape (batch,).

        Raises:
            ValueError: if there is no window k, or `share_at_hi` is no share.
        """
        if not 0 <= share_at_hi <= 1:
            raise ValueError(f"share_at_hi is {share_at_hi}: give a share from 0 to 1")
        t_hi, t_lo = self.bounds(k)
        depth, pick = torch.rand(2, batch, generator=generator, device=generator.device)
        t = t_hi - (t_hi - t_lo) * depth * (pick >= share_at_hi)
        # rounding may reach t_lo, which belongs to the next window
        lowest = torch.nextafter(torch.tensor(t_lo), torch.tensor(1.0))
        return t.clamp_min(lowest.item())
