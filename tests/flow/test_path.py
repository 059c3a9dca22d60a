"""Path conversions: round trips in float64, and times of every accepted shape."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from flowsteer.flow import (
    chord_point,
    eps_from_velocity,
    expand_time,
    interpolate,
    mean_velocity,
    velocity,
    velocity_from_x0,
    x0_from_velocity,
)


def points(seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x_0, eps = torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64).to(dtype)
    return x_0, eps


@given(st.lists(st.floats(1e-3, 1), min_size=3, max_size=3), st.integers(0, 100))
def test_every_conversion_round_trips_in_float64(times: list[float], seed: int) -> None:
    x_0, eps = points(seed)
    t = torch.tensor(times, dtype=torch.float64)
    x_t, v = interpolate(x_0, eps, t), velocity(x_0, eps)
    assert_close(x0_from_velocity(x_t, v, t), x_0, atol=1e-12, rtol=0)
    assert_close(eps_from_velocity(x_t, v, t), eps, atol=1e-12, rtol=0)
    assert_close(velocity_from_x0(x_t, x_0, t), v, atol=1e-10, rtol=0)


def test_noise_is_at_one_and_data_at_zero() -> None:
    x_0, eps = points()
    assert torch.equal(interpolate(x_0, eps, 1.0), eps)
    assert torch.equal(interpolate(x_0, eps, 0.0), x_0)


def test_velocity_is_the_derivative_of_the_path() -> None:
    x_0, eps = points()
    difference = interpolate(x_0, eps, 0.5) - interpolate(x_0, eps, 0.25)
    assert_close(difference / 0.25, velocity(x_0, eps))


def test_chord_of_a_straight_path_is_the_path() -> None:
    x_0, eps = points()
    x_hi, x_lo = interpolate(x_0, eps, 0.9), interpolate(x_0, eps, 0.5)
    v = mean_velocity(x_hi, x_lo, 0.9, 0.5)
    assert_close(v, velocity(x_0, eps))
    assert_close(chord_point(x_hi, v, 0.9, 0.7), interpolate(x_0, eps, 0.7))
    assert_close(chord_point(x_hi, v, 0.9, 0.5), x_lo)


def test_a_time_may_be_a_number_a_scalar_tensor_or_one_per_sample() -> None:
    x_0, eps = points()
    expected = interpolate(x_0, eps, 0.3)
    for t in (torch.tensor(0.3, dtype=torch.float64), torch.full((3,), 0.3, dtype=torch.float64)):
        assert torch.equal(interpolate(x_0, eps, t), expected)


@pytest.mark.parametrize("t", [torch.zeros(2), torch.zeros(3, 1), torch.zeros(1, 3)])
def test_a_time_of_another_shape_is_refused(t: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        expand_time(t, points()[0])


def test_half_precision_states_are_mixed_in_float32() -> None:
    x_0, eps = points(dtype=torch.bfloat16)
    x_t = interpolate(x_0, eps, 0.3)
    assert x_t.dtype == torch.float32
    assert_close(x_t, interpolate(x_0.float(), eps.float(), 0.3))
