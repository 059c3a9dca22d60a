"""Distribution matching at window ends, after TDM (Luo et al. 2025, arXiv 2503.06674) and DMD2
(Yin et al. 2024, arXiv 2405.14867).

The student goes its own way from the noise. Where it leaves a window, its state is noised forward,
and two fields say what data they see in it: the teacher, which knows the distribution that is
wanted, and the fake field, which is taught the student's own. For states of the student,

    grad KL(student || teacher) at t  ~  E_fake[x_0 | x_t] - E_teacher[x_0 | x_t],

so that a step against this difference makes the student's distribution the teacher's. Unlike the
path loss it does not say which of the teacher's pictures belongs to a noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from flowsteer.flow import (
    TimeWindows,
    VelocityField,
    euler_step,
    expand_time,
    mean_velocity,
    x0_from_velocity,
)

LEAST_TIME = 1e-3
"""Lowest time that is noised to: at t = 0 there is no noise whose share could be told."""


@dataclass(frozen=True, eq=False)
class WindowEnds:
    """Where the student's own path leaves a window, one window a sample."""

    x_lo: Tensor  # (b, *d): its state at t_lo, with gradient
    x_0: Tensor  # (b, *d): the data that the same call points to, with gradient
    t_lo: Tensor  # (b,)


class Noising(NamedTuple):
    """The randomness of noising a batch forward."""

    t: Tensor  # (b,): to which time, from `noising_times`
    noise: Tensor  # (b, *d): standard normal


def window_ends(
    student: VelocityField,
    states: list[Tensor],
    edge: Tensor,
    windows: TimeWindows,
    cond: Any = None,
) -> WindowEnds:
    """The student's call through window `edge` of each sample, one call with gradient.

    Args:
        student: the field that is taught.
        states: from `starts.own_states`.
        edge: (b,) int64 in [0, K).
        windows: the student's.
        cond: what it is told.
    """
    bounds = torch.tensor([windows.bounds(k) for k in range(windows.num_windows)])
    t_hi, t_lo = bounds.to(states[0].device, non_blocking=True)[edge].unbind(1)
    x_hi = torch.stack(states)[edge, torch.arange(len(edge), device=edge.device)]
    x_lo = euler_step(student, x_hi, t_hi, t_lo, cond)
    v = mean_velocity(x_hi, x_lo, t_hi, t_lo)
    return WindowEnds(x_lo, x0_from_velocity(x_hi, v, t_hi), t_lo)


def noising_times(uniform: Tensor, t_lo: Tensor, t_hi: Tensor | float = 1.0) -> Tensor:
    """Times (b,) evenly on [t_lo, t_hi], for uniform numbers (b,) on [0, 1).

    TDM draws up to 1. A lower t_hi leaves alone what only strong noise would question.
    """
    return (t_lo + uniform * (t_hi - t_lo)).clamp_min(LEAST_TIME)


def noised_forward(x_lo: Tensor, t_lo: Tensor, noising: Noising) -> Tensor:
    """States (b, *d) at `noising.t`, from states at t_lo <= t by fresh noise alone.

    x_t = a x_lo + s n with a = (1 - t) / (1 - t_lo) and s^2 = t^2 - (a t_lo)^2: if x_lo is
    distributed as (1 - t_lo) x_0 + t_lo eps, then x_t is as (1 - t) x_0 + t eps.
    """
    t, noise = noising
    a = (1 - t) / (1 - t_lo)
    return expand_time(a, x_lo) * x_lo + expand_time(t * _fresh(t, t_lo), x_lo) * noise


def distribution_matching_loss(
    ends: WindowEnds,
    fake: VelocityField,
    teacher: VelocityField,
    noising: Noising,
    cond: Any = None,
) -> Tensor:
    """Its gradient on the student's prediction x_0 is g / (number of elements), with

        g = (E_fake[x_0 | x_t] - E_teacher[x_0 | x_t]) / mean |x_0 - E_teacher[x_0 | x_t]|,

    x_t the noised end and the mean each sample's own, as in DMD2, so that no time and no sample
    outweighs another. The value is half the mean square of g; it need not fall.

    Args:
        ends: from `window_ends`.
        fake: the field of the student's own distribution; no gradient flows into it.
        teacher: the guided one.
        noising: time and noise.
        cond: what both fields are told.

    Returns:
        A scalar.
    """
    with torch.no_grad():
        x_t = noised_forward(ends.x_lo, ends.t_lo, noising)
        seen = [
            x0_from_velocity(x_t, field(x_t, noising.t, cond).to(x_t), noising.t)
            for field in (fake, teacher)
        ]
        size = (ends.x_0 - seen[1]).flatten(1).abs().mean(1).clamp_min(1e-6)
        target = ends.x_0 - (seen[0] - seen[1]) / expand_time(size, x_t)
    return F.mse_loss(ends.x_0, target) / 2


def fake_field_loss(
    fake: VelocityField, x_lo: Tensor, t_lo: Tensor, noising: Noising, cond: Any = None
) -> Tensor:
    """What teaches the fake field the distribution of states x_lo (b, *d), noised forward.

    Denoising score matching on the fresh noise (Vincent 2011): the score of x_t given x_lo is
    -n / s, which a field says as -(x_t + (1 - t) v) / t. In terms of v,

        mean((w v - w v*)^2),    w v* = (1 - t_lo) (n - r (a x_lo + s n)) / (1 - t),

    with r = s / t and w = (1 - t_lo) r: the less noise is fresh, and the more was there before, the
    less v* knows. At t_lo = 0 it is the flow-matching loss: w = 1 and v* = n - x_0.

    Returns:
        A scalar.
    """
    t, noise = noising
    x_t, r = noised_forward(x_lo, t_lo, noising), _fresh(t, t_lo)
    # w v* with its two terms divided by 1 - t on paper, since they vanish together at t = 1
    of_noise = (1 - t_lo) + (1 - t) * t_lo.square() / (t * (1 - t_lo))
    target = expand_time(of_noise, x_lo) * noise - expand_time(r, x_lo) * x_lo
    v = fake(x_t.detach(), t, cond).float()
    return F.mse_loss(expand_time((1 - t_lo) * r, x_lo) * v, target.detach())


def _fresh(t: Tensor, t_lo: Tensor) -> Tensor:
    """r = s / t: the share of the noise at t, in deviations, that came since t_lo; (b,)."""
    kept = (1 - t) / (1 - t_lo) * t_lo / t
    return (1 - kept.square()).clamp_min(0).sqrt()
