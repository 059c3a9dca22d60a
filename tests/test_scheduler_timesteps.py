"""Timesteps in `step`, `scale_noise` and `set_begin_index`: whole, rounded, off the grid."""

import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from flowsteer import RectifiedFlowMatchEulerDiscreteScheduler as Rectified


def test_every_whole_timestep_is_found():
    """Ten of them are not exactly 1000 * (t / 1000) in float32."""
    scheduler = Rectified()
    assert [scheduler.index_for_timestep(float(t)) for t in range(1000, 0, -1)] == [*range(1000)]
    inexact = [t for t in range(1, 1001) if scheduler.timesteps[1000 - t] != t]
    assert len(inexact) == 10
    times = torch.tensor(inexact)
    x, noise = torch.randn(2, 10, 4, generator=torch.Generator().manual_seed(0))
    sigma = times[:, None] / 1000
    for given in (times, times.float(), times.double(), times.numpy(), times.tolist()):
        assert_close(scheduler.scale_noise(x, given, noise), (1 - sigma) * x + sigma * noise)


@pytest.mark.parametrize("time", [254, 254.0, torch.tensor(254), torch.tensor([254.0])])
def test_one_timestep_serves_all_samples(time):
    x, noise = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    assert_close(Rectified().scale_noise(x, time, noise), 0.746 * x + 0.254 * noise)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("steps", [4, 28])
def test_timesteps_may_be_rounded_to_another_precision(dtype, steps):
    scheduler = Rectified(shift=3.0)
    scheduler.set_timesteps(steps)
    rounded = scheduler.timesteps.to(dtype)
    assert [scheduler.index_for_timestep(t) for t in rounded] == [*range(steps)]
    x = torch.ones(steps, 2, dtype=dtype)
    noisy = scheduler.scale_noise(x, rounded, torch.zeros_like(x))
    expected = (1 - scheduler.sigmas[:-1, None]).expand(-1, 2).to(dtype)
    assert noisy.dtype == dtype
    assert_close(noisy, expected, atol=8e-3, rtol=0)


@pytest.mark.parametrize("time", [123, 899.9, 0, -900, 1001, math.nan, torch.tensor(123)])
def test_a_time_off_the_grid_is_refused_by_name(time):
    scheduler = Rectified(shift=3.0)
    scheduler.set_timesteps(4)
    x = torch.zeros(1, 2)
    with pytest.raises(ValueError, match=r"not on the time grid \[1000, 900, 750, 500\]"):
        scheduler.scale_noise(x, time, x)
    with pytest.raises(ValueError, match="not on the time grid|Passing integer indices"):
        scheduler.step(x, time, x)


def test_step_finds_whole_timesteps_and_ends_with_the_grid():
    scheduler = Rectified(shift=3.0)
    scheduler.set_timesteps(4)
    x = torch.zeros(1, 2)
    for t in (900.0, torch.tensor(750.0), np.float32(500)):
        x = scheduler.step(torch.ones_like(x), t, x).prev_sample
    assert_close(x, torch.full((1, 2), -0.9))
    with pytest.raises(ValueError, match="all 4 steps of the grid are taken"):
        scheduler.step(x, 500.0, x)


def test_step_works_before_a_grid_is_chosen():
    x = torch.zeros(1, 2)
    moved = Rectified().step(torch.ones_like(x), 254.0, x).prev_sample
    assert_close(moved, torch.full((1, 2), -0.001), atol=1e-6, rtol=0)


@pytest.mark.parametrize("index", [0, 2, 4, 2.0, np.int64(2), torch.tensor(2)])
def test_a_begin_index_is_a_number_of_calls_to_leave_out(index):
    scheduler = Rectified(shift=3.0)
    scheduler.set_timesteps(4)
    scheduler.set_begin_index(index)
    assert scheduler.begin_index == int(index)


@pytest.mark.parametrize("index", [-1, 5, 2.5, True, "2", None])
def test_no_other_begin_index_is(index):
    scheduler = Rectified(shift=3.0)
    scheduler.set_timesteps(4)
    with pytest.raises(ValueError, match="begin_index = .* whole number from 0 to 4"):
        scheduler.set_begin_index(index)


def test_what_scale_noise_cannot_mix_is_refused():
    x = torch.zeros(2, 3)
    with pytest.raises(ValueError, match="give `noise`"):
        Rectified().scale_noise(x, 254)
    with pytest.raises(ValueError, match="3 timesteps for 2 samples"):
        Rectified().scale_noise(x, [1, 2, 3], x)
