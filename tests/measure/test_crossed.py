"""Intervals over training seeds and prompts at once."""

import math

import pytest
import torch

from flowsteer.measure import crossed_bootstrap, crossed_interval, paired_bootstrap


def scores(runs, prompts, run_spread, prompt_spread, seed=0):
    """Additive scores: a run's own level plus a prompt's own."""
    generator = torch.Generator().manual_seed(seed)
    run = run_spread * torch.randn(runs, 1, generator=generator, dtype=torch.float64)
    prompt = prompt_spread * torch.randn(1, prompts, generator=generator, dtype=torch.float64)
    return run + prompt


@pytest.mark.parametrize(("runs", "prompts"), [(40, 30), (5, 400)])
def test_width_is_that_of_both_spreads_together(runs, prompts):
    """Additive levels: the mean's variance is run variance / s + prompt variance / n, as in the
    sample (divided by s and n, not by one less)."""
    values = scores(runs, prompts, 1.0, 2.0)
    run_variance = float(values.mean(1).var(correction=0)) / runs
    prompt_variance = float(values.mean(0).var(correction=0)) / prompts
    half = 1.96 * math.sqrt(run_variance + prompt_variance)
    found = crossed_interval(values)
    assert found.mean == pytest.approx(float(values.mean()))
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.08)


def test_one_run_has_the_interval_of_its_prompts():
    a, b = torch.rand(60), torch.rand(60)
    crossed, plain = crossed_bootstrap(a[None], b[None]), paired_bootstrap(a, b)
    assert crossed.mean == pytest.approx(plain.mean)
    assert crossed.high - crossed.low == pytest.approx(plain.high - plain.low, rel=0.06)


def test_seeds_that_disagree_take_certainty_away():
    """Better by 1 in two runs and worse by 0.5 in the third: prompts alone would call it sure."""
    b = torch.zeros(3, 200)
    a = torch.tensor([1.0, 1.0, -0.5])[:, None].expand(3, 200)
    assert paired_bootstrap(a.mean(0), b.mean(0)).excludes(0)
    found = crossed_bootstrap(a, b)
    assert found.mean == pytest.approx(0.5) and not found.excludes(0)


def test_pairs_of_seeds_are_kept_together():
    generator = torch.Generator().manual_seed(0)
    level = 10 * torch.randn(4, 1, generator=generator)
    prompts = torch.randn(4, 300, generator=generator)
    a, b = level + 0.5 + 0.1 * prompts, level.expand(4, 300)
    assert crossed_bootstrap(a, b).excludes(0)
    assert not crossed_bootstrap(a, b.roll(1, 0)).excludes(0)


def test_a_teacher_without_seeds_pairs_with_every_run():
    a, teacher = torch.rand(3, 50), torch.rand(1, 50)
    assert crossed_bootstrap(a, teacher) == crossed_bootstrap(a, teacher.expand(3, 50))


def test_any_number_of_resamples_is_made():
    values = scores(3, 20, 1, 1)
    few = crossed_interval(values, num_resamples=501)  # one more than are made at once
    assert few.low < few.mean < few.high
    assert crossed_interval(values, seed=1) != crossed_interval(values, seed=2)


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        (torch.zeros(3, 4), torch.zeros(3, 5), "make no pairs"),
        (torch.zeros(3, 4), torch.zeros(2, 4), "make no pairs"),
        (torch.zeros(4), torch.zeros(4), "a row a run"),
        (torch.zeros(0, 4), torch.zeros(0, 4), "a row a run"),
        (torch.full((1, 4), torch.nan), torch.zeros(1, 4), "NaN"),
    ],
)
def test_scores_that_do_not_pair_are_refused(a, b, words):
    with pytest.raises(ValueError, match=words):
        crossed_bootstrap(a, b)
