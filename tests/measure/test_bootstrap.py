import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flowsteer.measure import (
    Interval,
    mean_interval,
    paired_bootstrap,
    stratified_interval,
    wilson_interval,
)


def test_wilson_against_published_values():
    # Newcombe 1998, table I, method 3: 81 of 263, 15 of 148, 0 of 20, 1 of 29
    cases = {
        (81, 263): (0.2553, 0.3662),
        (15, 148): (0.0624, 0.1605),
        (0, 20): (0.0, 0.1611),
        (1, 29): (0.0061, 0.1718),
    }
    for (successes, trials), (low, high) in cases.items():
        found = wilson_interval(successes, trials)
        assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 500), st.data())
def test_wilson_holds_its_mean_lies_in_0_1_and_mirrors(trials, data):
    successes = data.draw(st.integers(0, trials))
    found, mirrored = (
        wilson_interval(successes, trials),
        wilson_interval(trials - successes, trials),
    )
    assert 0 <= found.low <= found.mean <= found.high <= 1
    assert found.low == pytest.approx(1 - mirrored.high, abs=1e-12)
    wide = wilson_interval(successes, trials, confidence=0.99)
    assert wide.low <= found.low and wide.high >= found.high


@pytest.mark.parametrize(("successes", "trials"), [(1, 0), (-1, 3), (4, 3)])
def test_wilson_refuses_impossible_counts(successes, trials):
    with pytest.raises(ValueError, match="trials"):
        wilson_interval(successes, trials)


def test_mean_interval_is_as_wide_as_the_normal_theory_says():
    values = torch.randn(2_000, generator=torch.Generator().manual_seed(0)).double() + 3
    found = mean_interval(values)
    half = 1.96 * float(values.std()) / math.sqrt(len(values))
    assert found.mean == pytest.approx(float(values.mean()))
    assert (found.low, found.high) == pytest.approx(
        (found.mean - half, found.mean + half), abs=0.1 * half
    )


def test_intervals_cover_the_truth_as_often_as_they_say():
    generator = torch.Generator().manual_seed(1)
    hits = 0
    for trial in range(300):
        values = torch.rand(60, generator=generator)
        hits += not mean_interval(values, num_resamples=400, seed=trial).excludes(0.5)
    assert 0.90 <= hits / 300 <= 0.985  # 95% of 300, four standard errors either way


def test_paired_bootstrap_takes_out_what_is_hard_for_both():
    generator = torch.Generator().manual_seed(0)
    difficulty = 10 * torch.randn(200, generator=generator)
    a = difficulty + 0.5 + 0.1 * torch.randn(200, generator=generator)
    b = difficulty + 0.1 * torch.randn(200, generator=generator)
    found = paired_bootstrap(a, b)
    assert found.excludes(0) and found.low > 0.4 and found.high < 0.6
    apart = paired_bootstrap(a, b[torch.randperm(200, generator=generator)])
    assert not apart.excludes(0)  # the pairing, not the sample size, is what found it


def test_paired_bootstrap_does_not_find_a_difference_of_equals():
    scores = [True, False, True, True, False, True]
    assert paired_bootstrap(scores, scores) == Interval(0, 0, 0)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5)), min_size=1, max_size=30),
    st.integers(0, 2**31),
)
def test_paired_bootstrap_mirrors_when_the_systems_change_places(pairs, seed):
    a, b = [p[0] for p in pairs], [p[1] for p in pairs]
    there = paired_bootstrap(a, b, num_resamples=200, seed=seed)
    back = paired_bootstrap(b, a, num_resamples=200, seed=seed)
    assert (there.mean, there.low, there.high) == pytest.approx(
        (-back.mean, -back.high, -back.low), abs=1e-9
    )


def test_the_same_seed_gives_the_same_interval_and_another_seed_another():
    values = torch.rand(50, generator=torch.Generator().manual_seed(0))
    assert mean_interval(values, seed=4) == mean_interval(values, seed=4)
    assert mean_interval(values, seed=4) != mean_interval(values, seed=5)


def test_stratified_mean_weighs_groups_alike_and_leaves_out_the_spread_between_them():
    groups = [[0.0] * 10, [1.0] * 1000]
    assert stratified_interval(groups) == Interval(0.5, 0.5, 0.5)


@pytest.mark.parametrize("values", [[], [[1.0, 2.0]], [float("nan"), 1.0]])
def test_bad_values_are_refused(values):
    with pytest.raises(ValueError, match="values"):
        mean_interval(values)


def test_other_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="2 and 3"):
        paired_bootstrap([1.0, 2.0], [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="confidence"):
        mean_interval([1.0], confidence=95)
    with pytest.raises(ValueError, match="num_resamples"):
        mean_interval([1.0], num_resamples=0)
    with pytest.raises(ValueError, match="groups"):
        stratified_interval([])
