"""Where windows start, on the exact Gaussian mixture."""

from dataclasses import replace

import pytest
import torch

from flowsteer.distill import (
    Batch,
    Solve,
    authentic_starts,
    interpolated_starts,
    on_policy_starts,
    pair_starts,
    window_velocity_loss,
)
from flowsteer.flow import GaussianMixture, TimeWindows, heun_step, rectified_grid, rollout

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


def test_an_unknown_solver_is_refused():
    with pytest.raises(ValueError, match="solver = 'rk45' is unknown"):
        Solve(solver="rk45")


def test_a_window_is_solved_to_its_end_by_the_solver_named(curved):
    """Errors at equal substeps: Euler's is the largest; all shrink with more of them."""
    x = make_batch(curved).eps.double()
    exact = rollout(curved.velocity, x, torch.linspace(1, 0.5, 400), step=heun_step).end

    def error(solver, substeps):
        return (Solve(substeps, 3.0, solver)(curved.velocity, x, 1.0, 0.5, None) - exact).norm()

    assert error("euler", 6) > 2 * error("multistep", 6) > 2 * error("heun", 6)
    for solver in ("euler", "multistep", "heun"):
        assert error(solver, 24) < error(solver, 6) / 3


# ---- pairs of noise and endpoint


def test_a_pair_is_noise_and_where_the_teachers_path_ends(curved):
    batch = make_batch(curved)
    (segment,) = pair_starts(curved.velocity, batch, TimeWindows((1, 0)), Solve(28, 3.0))
    torch.testing.assert_close(segment.x_hi, batch.eps)
    path = rollout(curved.velocity, batch.eps, rectified_grid(28, 3.0))
    torch.testing.assert_close(segment.x_lo, path.end)
    # the chord is the straight line between the two, and its velocity noise minus image
    torch.testing.assert_close(segment.mean_velocity, batch.eps - path.end)


def test_pairs_have_one_window(curved):
    with pytest.raises(ValueError, match="num_windows = 1"):
        next(pair_starts(curved.velocity, make_batch(curved), WINDOWS, SOLVE))


# ---- the student's own states


def marked(batch, marks):
    return replace(batch, on_policy=marks)


def own_student(x, t, cond):
    return torch.sin(x) + t[:, None]


def test_marked_samples_start_on_the_students_path_and_others_on_the_teachers(curved):
    batch = marked(make_batch(curved), torch.arange(64) % 2 == 0)
    own = rollout(own_student, batch.eps, WINDOWS.edges).states
    teachers = list(authentic_starts(curved.velocity, batch, WINDOWS, SOLVE))
    mixed = list(on_policy_starts(own_student)(curved.velocity, batch, WINDOWS, SOLVE))
    assert len(mixed) == 4
    for k, (ours, theirs) in enumerate(zip(mixed, teachers, strict=True)):
        torch.testing.assert_close(ours.x_hi[::2], own[k][::2])
        torch.testing.assert_close(ours.x_hi[1::2], theirs.x_hi[1::2])
        torch.testing.assert_close(ours.x_lo[1::2], theirs.x_lo[1::2])
        # wherever a window starts, the teacher crosses it
        solved = SOLVE(curved.velocity, ours.x_hi, *WINDOWS.bounds(k), None)
        torch.testing.assert_close(ours.x_lo, solved)
    assert (mixed[3].x_hi[::2] - teachers[3].x_hi[::2]).norm() > 1


def test_a_student_that_is_its_optimum_never_leaves_the_teachers_path(curved):
    """Its step is the teacher's passage, so that marks change nothing."""
    batch = marked(make_batch(curved), torch.ones(64, dtype=torch.bool))
    segments = list(authentic_starts(curved.velocity, batch, WINDOWS, SOLVE))
    at = {segment.t_hi: segment.mean_velocity for segment in segments}

    def perfect(x, t, cond):
        return next(v for t_hi, v in at.items() if abs(t_hi - t[0]) < 1e-6)

    own = on_policy_starts(perfect)(curved.velocity, batch, WINDOWS, SOLVE)
    for ours, theirs in zip(own, segments, strict=True):
        torch.testing.assert_close(ours.x_hi, theirs.x_hi, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(ours.x_lo, theirs.x_lo, rtol=1e-5, atol=1e-5)


def test_each_window_costs_one_solve_and_each_inner_edge_one_call_of_the_student(curved):
    calls = {"teacher": 0, "student": 0}

    def counted(name, field):
        def call(x, t, cond):
            calls[name] += 1
            return field(x, t, cond)

        return call

    scale = torch.ones((), requires_grad=True)
    student = counted("student", lambda x, t, c: scale * own_student(x, t, c))
    batch = marked(make_batch(curved), torch.arange(64) < 32)
    teacher = counted("teacher", curved.velocity)
    for segment in on_policy_starts(student)(teacher, batch, WINDOWS, SOLVE):
        assert torch.is_grad_enabled()  # the loss between two windows is the caller's
        assert not segment.x_hi.requires_grad and not segment.x_lo.requires_grad
    assert calls == {"teacher": 4 * 7, "student": 3}


@pytest.mark.parametrize("marks", [None, torch.ones(64), torch.ones(63, dtype=torch.bool)])
def test_on_policy_starts_need_a_mark_for_each_sample(curved, marks):
    batch = marked(make_batch(curved), marks)
    with pytest.raises(ValueError, match="a bool for each of 64"):
        next(on_policy_starts(own_student)(curved.velocity, batch, WINDOWS, SOLVE))
