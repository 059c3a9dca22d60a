"""Solvers: their measured order, their cost, their precision, and what a rollout keeps."""

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from flowsteer.flow import (
    GaussianMixture,
    Step,
    TimeWindows,
    euler_step,
    heun_step,
    interpolate,
    iterate,
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


@pytest.mark.parametrize(("step", "order"), [(euler_step, 1), (heun_step, 2)])
def test_measured_order(step: Step, order: int) -> None:
    reference = rollout(CURVED, noise(), rectified_grid(2048), step=heun_step).end
    counts = [32, 64, 128, 256]
    errors = [(rollout(CURVED, noise(), rectified_grid(n), step=step).end - reference).norm().item()
              for n in counts]  # fmt: skip
    log_step = torch.tensor([-math.log(n) for n in counts])
    log_error = torch.tensor([math.log(e) for e in errors])
    centred = log_step - log_step.mean()
    slope = (centred @ log_error / (centred @ centred)).item()
    assert slope == pytest.approx(order, abs=0.2)


@pytest.mark.parametrize(("step", "calls_per_step"), [(euler_step, 1), (heun_step, 2)])
def test_a_straight_field_is_solved_exactly_and_at_its_price(step: Step, calls_per_step) -> None:
    x_0, eps, calls = noise() + 3, noise(), []

    def straight(x: Tensor, t: Tensor, cond: None) -> Tensor:
        calls.append(t)
        return eps - x_0

    trajectory = rollout(straight, eps, rectified_grid(4, 3), step=step)
    for x, t in zip(trajectory.states, trajectory.times, strict=True):
        assert_close(x, interpolate(x_0, eps, t))
    assert len(calls) == 4 * calls_per_step
    assert all(t.shape == (64,) for t in calls)


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

    for step in (euler_step, heun_step):
        x = rollout(
            rough, torch.full((1, 1), 4.0, dtype=torch.bfloat16), rectified_grid(1000), step=step
        )
        assert x.states.dtype == torch.float32
        assert_close(x.end, torch.full((1, 1), 3.0), atol=1e-4, rtol=0)


def test_the_condition_and_gradients_pass_through() -> None:
    scale = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    rollout(lambda x, t, cond: cond * x, noise(), [1.0, 0.5], cond=scale).end.sum().backward()
    assert_close(scale.grad, -0.5 * noise().sum())


@pytest.mark.parametrize(
    "times", [[], [1.0], [0.0, 1.0], [1.0, 1.0], [1.0, math.nan], [[1.0, 0.0]]]
)
def test_times_that_do_not_fall_are_refused(times) -> None:
    with pytest.raises(ValueError, match="falling"):
        rollout(CURVED, noise(), times)


@pytest.mark.parametrize("times", [[1.5, 0.0], [1.0, -0.1], [1000.0, 0.0]])
def test_times_outside_the_path_are_refused(times: list[float]) -> None:
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        rollout(CURVED, noise(), times)
