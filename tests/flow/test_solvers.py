"""Solvers: their measured order, their cost, their precision, and what a rollout keeps."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from flowsteer.flow import (
    CALLS_PER_STEP,
    SOLVERS,
    GaussianMixture,
    TimeWindows,
    euler_step,
    find_solver,
    heun_step,
    interpolate,
    iterate,
    iterate_multistep,
    mean_velocity,
    rectified_grid,
    refine_grid,
    rollout,
)

CURVED = GaussianMixture(
    means=torch.tensor([[1.5, 0.0], [-1.0, 1.0], [0.0, -1.5]], dtype=torch.float64),
    std=torch.tensor([0.5, 0.6, 0.7], dtype=torch.float64),
    weights=torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64),
).velocity


def noise(n: int = 64) -> Tensor:
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def end(solver: str, x: Tensor, times) -> Tensor:
    return list(SOLVERS[solver](CURVED, x, times))[-1]


def uneven_grid(n: int) -> Tensor:
    """Steps of 1 and 2 in turns: a ratio that refining does not bring nearer to 1."""
    steps = torch.tensor([1.0, 2.0], dtype=torch.float64).repeat(n // 2)
    return 1 - torch.cat([torch.zeros(1, dtype=torch.float64), (steps / steps.sum()).cumsum(0)])


@pytest.mark.parametrize("grid", [rectified_grid, uneven_grid])
@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2), ("multistep", 2)])
def test_measured_order(solver: str, order: int, grid) -> None:
    reference = rollout(CURVED, noise(), rectified_grid(2048), step=heun_step).end
    counts = [32, 64, 128, 256]
    errors = [(end(solver, noise(), grid(n).clamp_min(0)) - reference).norm().item()
              for n in counts]  # fmt: skip
    log_step = torch.tensor([-math.log(n) for n in counts])
    log_error = torch.tensor([math.log(e) for e in errors])
    centred = log_step - log_step.mean()
    slope = (centred @ log_error / (centred @ centred)).item()
    assert slope == pytest.approx(order, abs=0.2)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_straight_field_is_solved_exactly_and_at_its_price(solver: str) -> None:
    x_0, eps, calls = noise() + 3, noise(), []

    def straight(x: Tensor, t: Tensor, cond: None) -> Tensor:
        calls.append(t)
        return eps - x_0

    times = rectified_grid(4, 3)
    for x, t in zip(SOLVERS[solver](straight, eps, times), times, strict=True):
        assert_close(x, interpolate(x_0, eps, t))
    assert len(calls) == 4 * CALLS_PER_STEP[solver]
    assert all(t.shape == (64,) for t in calls)


def test_one_step_of_the_multistep_is_eulers() -> None:
    assert torch.equal(end("multistep", noise(), [1.0, 0.6]), end("euler", noise(), [1.0, 0.6]))
    assert not torch.equal(
        end("multistep", noise(), [1, 0.8, 0.6]), end("euler", noise(), [1, 0.8, 0.6])
    )


@given(st.lists(st.floats(0.01, 1), min_size=2, max_size=8))
@settings(max_examples=50, deadline=None)
def test_the_multistep_is_exact_where_velocity_is_linear_in_time(steps: list[float]) -> None:
    """With any steps; only the first, Euler's, misses the parabola, by half its square."""
    falls = torch.tensor([0.0, *steps], dtype=torch.float64).cumsum(0)
    times = (1 - falls / falls[-1]).clamp_min(0)
    x = torch.ones(1, 1, dtype=torch.float64)
    states = torch.cat(list(iterate_multistep(lambda x, t, c: 2 * t[:, None], x, times)))[:, 0]
    missed = (times[1] - times[0]).square()
    assert_close(states[1:], times[1:].square() - missed)


def test_the_multistep_halves_eulers_calls() -> None:
    """Its endpoint error is smaller than that of Euler with more than twice as many calls."""
    reference = rollout(CURVED, noise(), rectified_grid(512, 3), step=heun_step).end
    for calls in (12, 16, 24):
        multistep = (end("multistep", noise(), rectified_grid(calls, 3)) - reference).norm()
        assert multistep < (end("euler", noise(), rectified_grid(2 * calls, 3)) - reference).norm()


def test_an_unknown_solver_is_refused() -> None:
    assert find_solver("multistep") is iterate_multistep
    with pytest.raises(ValueError, match="solver = 'rk45' is unknown; use one of euler, heun"):
        find_solver("rk45")


def window_mismatch(field, windows: TimeWindows) -> float:
    """Mean squared distance between a field along its chords and the chords' velocity."""
    fine = rollout(field, noise(), refine_grid(windows.edges, 64)).states[::64]
    loss = torch.zeros((), dtype=torch.float64)
    for k in range(windows.num_windows):
        t_hi, t_lo = windows.bounds(k)
        v = mean_velocity(fine[k], fine[k + 1], t_hi, t_lo)
        for t in torch.linspace(t_hi, t_lo, 5, dtype=torch.float64)[:-1]:
            x_t = fine[k] + (t - t_hi) * v
            loss += (field(x_t, t.expand(64), None) - v).square().mean()
    return loss.item()


def test_mean_velocity_is_the_field_when_it_is_straight_and_is_not_when_it_curves() -> None:
    windows = TimeWindows.from_grid(rectified_grid(4, 3))
    point = GaussianMixture(
        torch.tensor([[2.0, 1.0]], dtype=torch.float64), torch.zeros(1), torch.ones(1)
    )
    assert window_mismatch(point.velocity, windows) < 1e-20
    assert window_mismatch(CURVED, windows) > 1e-3


def test_iterate_yields_what_rollout_keeps() -> None:
    trajectory = rollout(CURVED, noise(), [1.0, 0.5, 0.0])
    assert trajectory.states.shape == (3, 64, 2)
    assert trajectory.times.tolist() == [1.0, 0.5, 0.0]
    states = list(iterate(CURVED, noise(), [1.0, 0.5, 0.0]))
    assert torch.equal(torch.stack(states), trajectory.states)
    assert torch.equal(trajectory.end, states[-1])


def test_a_step_takes_one_time_per_sample() -> None:
    x, t_hi, t_lo = noise(2), torch.tensor([1.0, 0.6]), torch.tensor([0.9, 0.1])
    together = euler_step(CURVED, x, t_hi, t_lo)
    for i in range(2):
        alone = euler_step(CURVED, x[i : i + 1], t_hi[i], t_lo[i])
        assert_close(together[i : i + 1], alone)


def test_states_stay_in_float32_under_a_bfloat16_field() -> None:
    def rough(x: Tensor, t: Tensor, cond: None) -> Tensor:
        assert x.dtype == t.dtype == torch.float32
        return torch.ones_like(x, dtype=torch.bfloat16)

    for solver in SOLVERS.values():
        start = torch.full((1, 1), 4.0, dtype=torch.bfloat16)
        *_, x = solver(rough, start, rectified_grid(1000))
        assert x.dtype == torch.float32
        assert_close(x, torch.full((1, 1), 3.0), atol=1e-4, rtol=0)


def test_the_condition_and_gradients_pass_through() -> None:
    scale = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    rollout(lambda x, t, cond: cond * x, noise(), [1.0, 0.5], cond=scale).end.sum().backward()
    assert_close(scale.grad, -0.5 * noise().sum())


@pytest.mark.parametrize(
    "times", [[], [1.0], [0.0, 1.0], [1.0, 1.0], [1.0, math.nan], [[1.0, 0.0]]]
)
def test_times_that_do_not_fall_are_refused(times) -> None:
    for solver in SOLVERS.values():
        with pytest.raises(ValueError, match="falling"):
            next(solver(CURVED, noise(), times))


@pytest.mark.parametrize("times", [[1.5, 0.0], [1.0, -0.1], [1000.0, 0.0]])
def test_times_outside_the_path_are_refused(times: list[float]) -> None:
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        rollout(CURVED, noise(), times)
