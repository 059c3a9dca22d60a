"""What the rectified scheduler is asked for: every way to give times, and every wrong one."""

import math

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    FlowMatchLCMScheduler,
    UniPCMultistepScheduler,
)
from torch.testing import assert_close

from flowsteer import RectifiedFlowMatchEulerDiscreteScheduler as Rectified

UNSHIFTED = [1.0, 0.75, 0.5, 0.25]
PAPER_GRID = [1.0, 0.9, 0.75, 0.5, 0.0]


def grid_of(*args, shift=3.0, scheduler=Rectified, **given):
    config = given.pop("config", {})
    made = scheduler(shift=shift, **config)
    made.set_timesteps(*args, **given)
    return made.sigmas


def assert_paper_grid(grid):
    assert_close(grid, torch.tensor(PAPER_GRID), atol=1e-6, rtol=0)


# --- the number of steps, and the shift ---------------------------------------------------------


@pytest.mark.parametrize(
    "steps",
    [4, np.int64(4), np.uint8(4), np.array(4), torch.tensor(4), torch.tensor([4])],
    ids=repr,
)
def test_any_whole_number_is_a_number_of_steps(steps):
    scheduler = Rectified(shift=3.0)
    scheduler.set_timesteps(steps)
    assert_paper_grid(scheduler.sigmas)
    assert scheduler.num_inference_steps == len(scheduler.timesteps) == 4


@pytest.mark.parametrize(
    "steps",
    [0, -1, 4.0, 3.5, np.float32(4), True, np.True_, torch.tensor(True), torch.tensor(4.0), 10**9,
     10**400, "4", [4, 5], math.nan],
    ids=lambda value: repr(value)[:20],
)  # fmt: skip
def test_no_other_number_is(steps):
    with pytest.raises(ValueError, match=r"num_inference_steps = .* whole number from 1 to 1,000"):
        grid_of(steps)


def test_no_grid_is_chosen_from_nothing():
    with pytest.raises(ValueError, match="give `num_inference_steps` or `sigmas`"):
        grid_of()


@pytest.mark.parametrize("shift", [0, -1, math.nan, math.inf, 10**400, "3", True, None], ids=str)
def test_a_bad_shift_is_refused_where_it_is_set(shift):
    scheduler = Rectified(shift=3.0)
    for setting in (lambda: Rectified(shift=shift), lambda: scheduler.set_shift(shift)):
        with pytest.raises(ValueError, match=r"shift is .*give a positive number"):
            setting()
    scheduler.set_timesteps(4)
    assert_paper_grid(scheduler.sigmas)


@pytest.mark.parametrize("kind", ["exponential", "linear"])
@pytest.mark.parametrize("mu", [math.nan, math.inf, 1e9, "much", [1, 2], -200])
def test_a_bad_mu_is_refused(kind, mu):
    config = {"use_dynamic_shifting": True, "time_shift_type": kind}
    with pytest.raises(ValueError, match="mu = .* must be a number"):
        grid_of(4, mu=mu, config=config)


@pytest.mark.parametrize(
    ("given", "config", "named"),
    [({"shift": 1e30}, {}, "shift 1e"),
     ({"mu": 60}, {"use_dynamic_shifting": True}, "mu 60"),
     ({"mu": -5}, {"use_dynamic_shifting": True, "time_shift_type": "linear"}, "mu -5")],
)  # fmt: skip
def test_a_shift_that_leaves_no_falling_grid_is_refused(given, config, named):
    with pytest.raises(ValueError, match=f"{named}.*must fall from at most 1 to 0"):
        grid_of(4, config=config, **given)


@pytest.mark.parametrize("count", [0, -5, 1.5, 10**10])
def test_the_number_of_trained_times_is_bounded(count):
    with pytest.raises(ValueError, match=r"num_train_timesteps = .* from 1 to 1,000,000"):
        Rectified(num_train_timesteps=count)


# --- explicit sigmas ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sigmas",
    [UNSHIFTED, tuple(UNSHIFTED), np.array(UNSHIFTED), np.array(UNSHIFTED, np.float16),
     torch.tensor(UNSHIFTED), torch.tensor(UNSHIFTED, dtype=torch.bfloat16),
     torch.tensor(UNSHIFTED, requires_grad=True), [torch.tensor(s) for s in UNSHIFTED]],
    ids=lambda value: type(value).__name__ + str(getattr(value, "dtype", "")),
)  # fmt: skip
def test_sigmas_may_be_any_sequence_of_numbers(sigmas):
    assert_paper_grid(grid_of(sigmas=sigmas))
    assert_paper_grid(grid_of(4, sigmas=sigmas))


@pytest.mark.parametrize("zero", [0, 0.0, -0.0, 5.6e-17, -5.6e-17])
def test_a_terminal_zero_asks_for_no_call(zero):
    """The network would be called at t = 0 for a step of length 0."""
    scheduler = Rectified(shift=3.0, window_edges=PAPER_GRID)
    for steps in (None, 4):
        scheduler.set_timesteps(steps, sigmas=[*UNSHIFTED, zero])
        assert_paper_grid(scheduler.sigmas)
        assert len(scheduler.timesteps) == scheduler.num_inference_steps == 4
    with pytest.raises(ValueError, match=r"sigmas \(4\) and num_inference_steps \(5\) differ"):
        scheduler.set_timesteps(5, sigmas=[*UNSHIFTED, zero])


def test_a_terminal_zero_makes_no_difference_to_the_picture_of_stock():
    """Stock spends a fifth call on it, and stays where it is."""
    ends = []
    for make in (FlowMatchEulerDiscreteScheduler, Rectified):
        scheduler = make(shift=3.0)
        scheduler.set_timesteps(sigmas=[*UNSHIFTED, 0])
        x = torch.ones(1, 3)
        for t in scheduler.timesteps:
            x = scheduler.step(torch.cos(x + t), t, x).prev_sample
        ends.append(x)
    assert torch.equal(*ends)


def test_a_zero_that_shift_terminal_moves_is_a_call_like_any_other():
    config, sigmas = {"shift_terminal": 0.1}, [1, 0.75, 0.5, 0.25, 0]
    ours = grid_of(sigmas=sigmas, config=config)
    stock = grid_of(sigmas=sigmas, config=config, scheduler=FlowMatchEulerDiscreteScheduler)
    assert torch.equal(ours, stock) and ours[-2] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("sigmas", "said"),
    [([1, 0.5, math.nan], "finite"), ([math.inf, 0.5], "finite"),
     ([1, 0.5, 0.5], "fall"), ([0.25, 0.5, 0.75], "fall"), ([1, 0, 0.5], "fall"),
     ([1, 0.5, 0, 0], "fall"), ([1, 0.5, -0.1], "fall"), ([0], "fall"),
     ([1.5, 1, 0.5], "fall from at most 1"), ([1000, 750, 500], "fall from at most 1"),
     ([], "a list of 1 to 1,000 numbers"), (0.5, "a list of 1 to 1,000 numbers"),
     ("abc", "a list of"), ([True, False], "a list of"), ([None], "a list of"),
     ([[1, 0.5]], "a list of"), ([[1], [0.5, 0.2]], "a list of"),
     (np.linspace(1, 0.1, 1001), "a list of 1 to 1,000")],
    ids=lambda value: repr(value)[:24],
)  # fmt: skip
def test_other_sigmas_are_refused_in_one_line(sigmas, said):
    scheduler = Rectified(shift=3.0)
    scheduler.set_timesteps(4)
    with pytest.raises(ValueError, match=f"sigmas = .*{said}") as refusal:
        scheduler.set_timesteps(sigmas=sigmas)
    assert len(str(refusal.value)) < 260 and "\n" not in str(refusal.value)
    assert_paper_grid(scheduler.sigmas)  # the grid that was there still is


def test_a_count_that_differs_is_refused():
    with pytest.raises(ValueError, match=r"sigmas \(4\) and num_inference_steps \(3\) differ"):
        grid_of(3, sigmas=UNSHIFTED)
    with pytest.raises(ValueError, match=r"sigmas \(4\) and timesteps \(1\) differ"):
        grid_of(sigmas=UNSHIFTED, timesteps=[1000])


# --- explicit timesteps -------------------------------------------------------------------------


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("steps", [1, 4, 28, 1000])
def test_timesteps_beside_sigmas_are_what_the_network_is_told(dynamic, steps):
    """CogView4 and GLM-Image: the sigmas are shifted, the timesteps are not, as in stock."""
    config = {"use_dynamic_shifting": dynamic, "time_shift_type": "linear"}
    told = np.linspace(1000, 1, steps).astype(np.int64).astype(np.float32)
    pair = []
    for make in (FlowMatchEulerDiscreteScheduler, Rectified):
        scheduler = make(shift=3.0, **config)
        scheduler.set_timesteps(sigmas=told / 1000, timesteps=told, mu=0.9)
        pair.append(scheduler)
    stock, ours = pair
    assert torch.equal(ours.sigmas, stock.sigmas)
    assert torch.equal(ours.timesteps, stock.timesteps)
    assert ours.timesteps.tolist() == told.tolist()


def test_timesteps_alone_are_taken_where_nothing_is_shifted():
    """LTXConditionPipeline: published without shift; all versions of diffusers agree there."""
    told = 1000 * torch.tensor([1.0, 0.9875, 0.975, 0.7])
    stock, ours = FlowMatchEulerDiscreteScheduler(), Rectified()
    for scheduler in (stock, ours):
        scheduler.set_timesteps(timesteps=told)
    assert torch.equal(ours.sigmas, stock.sigmas) and torch.equal(ours.timesteps, stock.timesteps)


@pytest.mark.parametrize(
    "config",
    [{"shift": 3.0}, {"use_dynamic_shifting": True}, {"shift_terminal": 0.1},
     {"use_exponential_sigmas": True}],
    ids=str,
)  # fmt: skip
def test_timesteps_alone_are_refused_where_versions_disagree(config):
    with pytest.raises(ValueError, match="pass unshifted `sigmas`"):
        Rectified(**config).set_timesteps(timesteps=[1000.0, 700.0, 300.0], mu=0.9)


def test_a_students_edges_hold_for_explicit_times_too():
    scheduler = Rectified(shift=3.0, window_edges=PAPER_GRID)
    scheduler.set_timesteps(sigmas=UNSHIFTED, timesteps=[1000, 900, 750, 500])
    with pytest.raises(ValueError, match="misses"):
        scheduler.set_timesteps(sigmas=[1, 0.5], timesteps=[1000, 500])


# --- other schedulers' configurations -----------------------------------------------------------


def test_the_stock_class_is_listed_as_compatible():
    assert Rectified().compatibles == [Rectified, FlowMatchEulerDiscreteScheduler]


@pytest.mark.parametrize(
    "other",
    [FlowMatchEulerDiscreteScheduler(shift=5.0), FlowMatchHeunDiscreteScheduler(shift=5.0),
     FlowMatchLCMScheduler(shift=5.0),
     UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5),
     DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True,
                                 flow_shift=5.0)],
    ids=lambda other: type(other).__name__,
)  # fmt: skip
def test_the_shift_of_any_flow_scheduler_is_kept(other, tmp_path):
    assert Rectified.from_config(other.config).shift == 5
    other.save_pretrained(tmp_path)
    assert Rectified.from_pretrained(tmp_path).shift == 5
    assert Rectified.from_config(other.config, shift=2.0).shift == 2


@pytest.mark.parametrize(
    "back", [FlowMatchEulerDiscreteScheduler, FlowMatchHeunDiscreteScheduler, FlowMatchLCMScheduler]
)
def test_other_schedulers_take_our_configuration(back):
    assert back.from_config(Rectified(shift=5.0).config).shift == 5


def test_a_scheduler_that_predicts_noise_is_refused(tmp_path):
    DDIMScheduler().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"DDIMScheduler.* predicts noise"):
        Rectified.from_pretrained(tmp_path)
