"""Two clouds of states: where the teacher is at each time, and where PeRFlow starts its windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from flowsteer.flow import interpolate, rectified_grid, rollout
from flowsteer.measure.energy import EnergyTest, energy_test
from flowsteer.paths import Plane
from flowsteer.toy import ToyTask

COMPONENT = 0
"""Which of the mixture's is asked for."""


@dataclass(frozen=True, eq=False)
class Clouds:
    """Authentic and interpolated states, seen in a plane, and how far apart they are in full.

    Attributes:
        times: T of them, from 1 to 0, a rectified grid.
        authentic: of n paths of the teacher's, (T, n, 2).
        interpolated: from m pictures and noises of their own, (T, m, 2).
        tests: the energy distance at each time, in all dimensions.
        labels: of the two axes.
    """

    times: tuple[float, ...]
    authentic: Tensor = field(repr=False)
    interpolated: Tensor = field(repr=False)
    tests: tuple[EnergyTest, ...] = field(repr=False)
    labels: tuple[str, str] = ("$x_1$", "$x_2$")

    def windows(self) -> tuple[int, ...]:
        """Every K of 2 or more whose edges are among the times."""
        steps = len(self.times) - 1
        return tuple(k for k in range(2, steps + 1) if steps % k == 0)

    def edges(self, num_windows: int) -> list[int]:
        """Indices into `times` of the inner edges of K windows, noisiest first.

        Raises:
            ValueError: if an edge is no time.
        """
        if num_windows not in self.windows():
            known = ", ".join(map(str, self.windows()))
            raise ValueError(
                f"num_windows = {num_windows} does not cut {len(self.times) - 1} steps into equal"
                f" parts; use one of {known}"
            )
        size = (len(self.times) - 1) // num_windows
        return [k * size for k in range(1, num_windows)]


def clouds_of(
    times: Sequence[float] | Tensor,
    states: Tensor,
    x_0: Tensor,
    noise: Tensor,
    plane: Plane | None = None,
    shuffles: int = 199,
) -> Clouds:
    """Clouds from the teacher's states, and from pictures on straight lines to noise.

    Args:
        times: (T,), a rectified grid.
        states: the teacher's at these times, (T, n, *d).
        x_0: m pictures, (m, *d).
        noise: as many noises, none of which the teacher's paths began with, (m, *d).
        plane: to see them in; None if they are points of the plane already.
        shuffles: of each test.

    Raises:
        ValueError: if the shapes disagree, or a noise begins one of the teacher's paths.
    """
    grid = tuple(float(t) for t in times)
    if len(states) != len(grid) or noise.shape != x_0.shape or states.shape[2:] != x_0.shape[1:]:
        raise ValueError(
            f"states {tuple(states.shape)} at {len(grid)} times, x_0 {tuple(x_0.shape)} and noise"
            f" {tuple(noise.shape)} must have the shapes (T, n, *d), (m, *d) and (m, *d)"
        )
    if bool((states[0, :, None] == noise[None]).flatten(2).all(-1).any()):
        raise ValueError("a noise begins one of the teacher's paths; draw others for x_0")
    straight = [interpolate(x_0, noise, t) for t in grid]
    tests = tuple(energy_test(a, b, shuffles) for a, b in zip(states, straight, strict=True))
    if plane is None:
        return Clouds(grid, states, torch.stack(straight), tests)
    own, lines = (torch.stack([plane.project(x) for x in cloud]) for cloud in (states, straight))
    first, second = (f"{share:.0%} of variance" for share in plane.explained)
    labels = (f"component 1 ({first})", f"component 2 ({second})")
    return Clouds(grid, own, lines, tests, labels)


def mixture_clouds(
    guidance_scale: float,
    count: int = 400,
    steps: int = 48,
    seed: int = 0,
    shuffles: int = 199,
) -> Clouds:
    """Clouds of the guided teacher of one component in the plane, where all is exact.

    Without guidance (1) both clouds have the same distribution at every time.

    Args:
        guidance_scale: of the teacher.
        count: paths, and as many pictures.
        steps: Euler steps of the teacher.
        seed: of all that is drawn.
        shuffles: of each test.
    """
    task, generator = ToyTask(guidance_scale=guidance_scale), torch.Generator().manual_seed(seed)
    cond = torch.full((count,), COMPONENT)
    eps, other = torch.randn(2, count, 2, generator=generator)
    times = rectified_grid(steps, task.shift)
    states = rollout(task.teacher, eps, times, cond).states
    return clouds_of(times, states, task.data(cond, generator), other, shuffles=shuffles)
