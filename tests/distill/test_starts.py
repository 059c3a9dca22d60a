"""Authentic and interpolated starts on the exact Gaussian mixture."""

import pytest
import torch

from flowsteer.distill import (
    Batch,
    authentic_starts,
    interpolated_starts,
    window_velocity_loss,
)
from flowsteer.distill.starts import Solve
from flowsteer.flow import GaussianMixture, TimeWindows, rectified_grid, rollout

WINDOWS = TimeWindows((1.0, 0.9, 0.75, 0.5, 0.0))
SOLVE = Solve(substeps=7, shift=3.0)


@pytest.fixture
def curved():
    means = torch.tensor([[2.0, 0.0], [-2.0, 1.0], [0.0, -2.0]])
    return GaussianMixture(means, torch.full((3,), 0.2), torch.ones(3))


def make_batch(mixture, count=64):
    generator = torch.Generator().manual_seed(0)
    eps = torch.randn(count, 2, generator=generator)
    depths = torch.rand(4, count, generator=generator)
    return Batch(eps, depths, x_0=mixture.sample(count, generator))


def test_authentic_segments_join_into_the_teachers_own_rollout(curved):
    batch = make_batch(curved)
    segments = list(authentic_starts(curved.velocity, batch, WINDOWS, SOLVE))
    path = rollout(curved.velocity, batch.eps, rectified_grid(28, 3.0))
    for k, segment in enumerate(segments):
        torch.testing.assert_close(segment.x_hi, path.states[7 * k], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(segment.x_lo, path.states[7 * k + 7], rtol=1e-4, atol=1e-5)
        assert (segment.t_hi, segment.t_lo) == WINDOWS.bounds(k)


def test_interpolated_segments_start_on_the_straight_line(curved):
    batch = make_batch(curved)
    for segment in interpolated_starts(curved.velocity, batch, WINDOWS, SOLVE):
        line = (1 - segment.t_hi) * batch.x_0 + segment.t_hi * batch.eps
        torch.testing.assert_close(segment.x_hi, line)


def test_both_agree_in_the_first_window_and_nowhere_else(curved):
    """At t = 1 both start from the noise: the mismatch begins at the second window."""
    batch = make_batch(curved)
    ours = authentic_starts(curved.velocity, batch, WINDOWS, SOLVE)
    theirs = interpolated_starts(curved.velocity, batch, WINDOWS, SOLVE)
    gaps = [(a.x_hi - b.x_hi).norm() for a, b in zip(ours, theirs, strict=True)]
    assert gaps[0] == 0
    assert min(gaps[1:]) > 1


def test_interpolated_starts_need_data(curved):
    batch = Batch(torch.randn(4, 2), torch.rand(4, 4))
    with pytest.raises(ValueError, match="need data"):
        next(interpolated_starts(curved.velocity, batch, WINDOWS, SOLVE))


def test_chord_runs_from_start_to_end(curved):
    batch = make_batch(curved)
    for segment in authentic_starts(curved.velocity, batch, WINDOWS, SOLVE):
        ones = torch.ones(len(batch.eps))
        torch.testing.assert_close(segment.chord(segment.t_hi * ones), segment.x_hi)
        torch.testing.assert_close(
            segment.chord(segment.t_lo * ones), segment.x_lo, rtol=1e-5, atol=1e-5
        )


def test_mean_velocity_scores_zero_and_the_curved_teacher_does_not(curved):
    batch = make_batch(curved)
    segments = authentic_starts(curved.velocity, batch, WINDOWS, SOLVE)
    for segment, depths in zip(segments, batch.depths, strict=True):
        exact = window_velocity_loss(lambda x, t, cond: segment.mean_velocity, segment, depths)  # noqa: B023
        own = window_velocity_loss(curved.velocity, segment, depths)
        assert exact == 0
        assert own > 1e-3


def test_a_straight_teacher_scores_zero_itself():
    """One Gaussian point: all paths are straight, and there is nothing to distil."""
    point = GaussianMixture(torch.tensor([[1.0, -1.0]]), torch.zeros(1), torch.ones(1))
    batch = make_batch(point)
    segments = authentic_starts(point.velocity, batch, WINDOWS, SOLVE)
    for segment, depths in zip(segments, batch.depths, strict=True):
        assert window_velocity_loss(point.velocity, segment, depths) < 1e-7


def test_gradients_reach_the_student_only(curved):
    scale = torch.ones((), requires_grad=True)
    batch = make_batch(curved)
    field = curved.velocity
    segment = next(authentic_starts(field, batch, WINDOWS, SOLVE))
    loss = window_velocity_loss(lambda x, t, c: scale * field(x, t, c), segment, batch.depths[0])
    loss.backward()
    assert scale.grad is not None and not segment.x_lo.requires_grad


def test_substeps_are_checked():
    with pytest.raises(ValueError, match="substeps = 0"):
        Solve(substeps=0)
