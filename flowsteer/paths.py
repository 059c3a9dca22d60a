"""Sampling paths to look at: every state and guess of a pipeline, a plane, a distance along it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from flowsteer.flow.path import mean_velocity, x0_from_velocity
from flowsteer.generation import PromptEmbeds, Settings, sample
from flowsteer.measure.distances import relative_l2


@dataclass(frozen=True, eq=False)
class RecordedPath:
    """Where a pipeline went, all in float32 on the CPU.

    Attributes:
        times: the grid, N + 1 times from 1 to 0.
        states: at these times, shape (N + 1, b, c, h, w); the first is the noise.
        x0_hats: the picture that each call points to, guidance included, shape (N, b, c, h, w);
            the last one is the final state.
        nfe: network calls a picture.
    """

    times: tuple[float, ...]
    states: Tensor = field(repr=False)
    x0_hats: Tensor = field(repr=False)
    nfe: int


@torch.no_grad()
def record_path(
    pipe: Any,
    embeds: PromptEmbeds,
    noise: Tensor,
    settings: Settings,
    should_stop: Callable[[], bool] | None = None,
) -> RecordedPath:
    """Sample as `flowsteer.generation.sample` does, and keep every state.

    Args:
        pipe: from `load_pipeline`.
        embeds: b prompts from `encode`; with the empty one if the settings guide.
        noise: (b, c, h, w).
        settings: as `sample` takes them.
        should_stop: asked after every step.

    Raises:
        ValueError: if a setting is out of range, or the grid lacks an edge of the student's.
        GenerationStopped: when `should_stop()` is true after a step.
    """
    # the pipeline rounds the noise to its own precision before the first call
    states = [noise.to(embeds.prompt.dtype).float().cpu()]

    def keep(index: int, sigma: float, latents: Tensor) -> None:
        states.append(latents.float().cpu().clone())

    result = sample(pipe, embeds, noise, settings, on_step=keep, should_stop=should_stop)
    # an Euler step leaves along the guided velocity of its call, so the step gives it back
    x0_hats = [
        x0_from_velocity(x_hi, mean_velocity(x_hi, x_lo, t_hi, t_lo), t_hi)
        for (x_hi, x_lo), (t_hi, t_lo) in zip(
            pairwise(states), pairwise(result.sigmas), strict=True
        )
    ]
    return RecordedPath(result.sigmas, torch.stack(states), torch.stack(x0_hats), result.nfe)


@dataclass(frozen=True, eq=False)
class Plane:
    """A plane through a cloud of states, to draw paths in.

    Attributes:
        centre: the states' mean, (d,) float64.
        axes: two orthonormal directions, (2, d) float64.
        explained: shares of the states' variance along them; what is missing to 1 is not seen.
    """

    centre: Tensor = field(repr=False)
    axes: Tensor = field(repr=False)
    explained: tuple[float, float]

    def project(self, states: Tensor) -> Tensor:
        """Coordinates (n, 2), float64, of states (n, *d).

        Raises:
            ValueError: if the states are of another size than those of the plane.
        """
        flat = states.detach().flatten(1).double().cpu()
        if flat.shape[1] != len(self.centre):
            raise ValueError(
                f"states of shape {tuple(states.shape)} have {flat.shape[1]} numbers each, the"
                f" plane's have {len(self.centre)}; give states of one model and size"
            )
        return (flat - self.centre) @ self.axes.mT


def plane_of(states: Tensor) -> Plane:
    """The plane in which states (n, *d) vary most: their first two principal components.

    Fit it to the teacher's states alone, so that students are seen where the teacher moves. The
    first state comes to lie to the left of and below the mean, whatever signs the solver returns.

    Raises:
        ValueError: if there are fewer than three states, or all are equal or not finite.
    """
    flat = states.detach().flatten(1).double().cpu()
    if len(flat) < 3 or flat.shape[1] < 2:
        raise ValueError(
            f"states of shape {tuple(states.shape)} span no plane; give (n, *d) with at least 3"
            " states of at least 2 numbers"
        )
    if not bool(torch.isfinite(flat).all()) or bool((flat == flat[0]).all()):
        raise ValueError("states are all equal or not finite; give those of a path that moves")
    centre = flat.mean(0)
    _, spread, axes = torch.linalg.svd(flat - centre, full_matrices=False)
    variance, axes = spread.square(), axes[:2]
    signs = torch.where((flat[0] - centre) @ axes.mT > 0, -1.0, 1.0).double()
    first, second = (variance[:2] / variance.sum()).tolist()
    return Plane(centre, axes * signs[:, None], (first, second))


def distance_along(path: RecordedPath, teacher_path: RecordedPath) -> Tensor:
    """Distance to the teacher's path at each of a path's own times: where it leaves it.

    Between two of the teacher's times its state is interpolated linearly.

    Args:
        path: of a student, or of the teacher with fewer steps.
        teacher_path: from the same noise, in many steps.

    Returns:
        Relative L2 (N + 1, b), float64; 0 at the first time, where both hold the same noise.

    Raises:
        ValueError: if the two paths hold different numbers or sizes of states.
    """
    if path.states.shape[1:] != teacher_path.states.shape[1:]:
        raise ValueError(
            f"paths hold states of shapes {tuple(path.states.shape[1:])} and"
            f" {tuple(teacher_path.states.shape[1:])}; record both from the same noise"
        )
    return torch.stack(
        [
            relative_l2(state, state_at(teacher_path, t))
            for t, state in zip(path.times, path.states, strict=True)
        ]
    )


def state_at(path: RecordedPath, t: float) -> Tensor:
    """The state (b, c, h, w) of a path at any time, linearly between two of its own.

    Raises:
        ValueError: if t is outside [0, 1].
    """
    if not 0 <= t <= 1:
        raise ValueError(f"t = {t} must lie in [0, 1]")
    # the last of its times that is not yet below t
    below = next((i for i, time in enumerate(path.times) if time < t), len(path.times))
    k = max(below - 1, 0)
    if path.times[k] == t or k + 1 == len(path.times):
        return path.states[k]
    t_hi, t_lo = path.times[k], path.times[k + 1]
    return torch.lerp(path.states[k], path.states[k + 1], (t_hi - t) / (t_hi - t_lo))
