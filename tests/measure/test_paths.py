"""Straightness and acceleration on paths whose values are known, order on exact powers."""

import math

import pytest
import torch

from flowsteer.measure import acceleration, measured_order, straightness

TIMES = torch.linspace(1, 0, 2001, dtype=torch.float64)


def along(x, y):
    return torch.stack([x, y], dim=1)[:, None]  # (n + 1, 1, 2)


def test_a_straight_line_at_constant_speed_is_straight():
    states = along(3 * TIMES, 1 - TIMES)
    assert straightness(states, TIMES).item() == pytest.approx(0, abs=1e-12)
    assert acceleration(states, TIMES)[1].max() < 1e-7


def test_a_straight_line_at_uneven_speed_is_not():
    """x = t^2: v = 2 t, its mean 1, and the integral of (2 t - 1)^2 is 1/3; |dv/dt| is 2."""
    states = along(TIMES.square(), 0 * TIMES)
    assert straightness(states, TIMES).item() == pytest.approx(1 / 3, abs=1e-5)
    inner, values = acceleration(states, TIMES)
    assert inner.shape == (1999,) and values.shape == (1999, 1)
    assert values.mean().item() == pytest.approx(2)


def test_a_half_circle_turns_all_the_way():
    """Of radius 1 in unit time: speed pi, |dv/dt| = pi^2, chord 2: (pi^2 - 4) / 4."""
    states = along((math.pi * TIMES).cos(), (math.pi * TIMES).sin())
    assert straightness(states, TIMES).item() == pytest.approx((math.pi**2 - 4) / 4, rel=1e-4)
    assert acceleration(states, TIMES)[1].mean().item() == pytest.approx(math.pi**2, rel=1e-4)


def test_uneven_times_change_nothing():
    times = TIMES.square()
    states = along(times.square(), 0 * times)
    assert straightness(states, times).item() == pytest.approx(1 / 3, abs=1e-4)
    assert acceleration(states, times)[1].mean().item() == pytest.approx(2, rel=1e-4)


def test_order_of_exact_powers():
    assert measured_order([4, 8, 16], [1 / 4**2, 1 / 8**2, 1 / 16**2]) == pytest.approx(2)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="3 states at 2 times"):
        straightness(torch.zeros(3, 1, 2), torch.tensor([1.0, 0.0]))
    with pytest.raises(ValueError, match="falling times"):
        straightness(torch.zeros(2, 1, 2), torch.tensor([0.0, 1.0]))
    with pytest.raises(ValueError, match="ends where it began"):
        straightness(torch.zeros(2, 1, 2), torch.tensor([1.0, 0.0]))
    with pytest.raises(ValueError, match="2 states have no acceleration"):
        acceleration(torch.zeros(2, 1, 2), torch.tensor([1.0, 0.0]))
    with pytest.raises(ValueError, match="give two or more of each"):
        measured_order([4], [0.1])
    with pytest.raises(ValueError, match="must be positive"):
        measured_order([4, 8], [0.1, 0.0])
