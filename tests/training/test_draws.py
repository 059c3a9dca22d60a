"""What a sample draws depends on the seed and its number alone."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flowsteer.training.draws import SampleBatch, draw_samples
from flowsteer.training.sources import PromptSource

SHAPE, WINDOWS = (2, 3, 3), 4


def together(parts):
    """Draws of several ranges, side by side."""
    return [
        torch.cat(leaves, dim=1 if name in ("depths", "at_hi") else 0)
        for name, leaves in zip(parts[0]._fields, zip(*parts, strict=True), strict=True)
    ]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 10**6), st.integers(1, 9), st.integers(1, 9))
def test_batches_cut_otherwise_draw_the_same(seed, first, one, two):
    middle, last = first + one, first + one + two
    whole = draw_samples(seed, range(first, last), SHAPE, WINDOWS)
    cut = [
        draw_samples(seed, r, SHAPE, WINDOWS) for r in (range(first, middle), range(middle, last))
    ]
    for expected, got in zip(whole, together(cut), strict=True):
        assert torch.equal(expected, got)


def test_samples_and_seeds_differ():
    draws = draw_samples(0, range(64), SHAPE, WINDOWS)
    other = draw_samples(1, range(64), SHAPE, WINDOWS)
    noises = torch.cat([draws.eps, other.eps]).flatten(1)
    assert len(noises.unique(dim=0)) == 128
    assert draws.eps.shape == (64, *SHAPE) and draws.depths.shape == (WINDOWS, 64)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**20))
def test_runs_of_two_seeds_share_no_stretch_of_samples(seed, other, number):
    """Nor do numbers far apart: torch's CPU generator reads 32 bits of its seed alone."""
    pairs = {(seed, number), (other, number), (seed, number + 2**40), (seed, number + 1_000_003)}
    firsts = [draw_samples(s, range(n, n + 1), SHAPE, 1).eps.flatten() for s, n in pairs]
    assert len(torch.stack(firsts).unique(dim=0)) == len(pairs)


def test_noise_is_normal_and_the_rest_even():
    draws = draw_samples(5, range(2000), SHAPE, WINDOWS)
    assert abs(draws.eps.mean()) < 0.02 and abs(draws.eps.std() - 1) < 0.02
    for name in ("depths", "at_hi", "guidance", "on_policy", "edge"):
        even = getattr(draws, name)
        assert even.min() >= 0 and even.max() < 1
        assert abs(even.mean() - 0.5) < 0.03 and abs(even.std() - 12**-0.5) < 0.02
    leaves = torch.stack([draws.guidance, draws.on_policy, draws.edge, *draws.depths, *draws.at_hi])
    correlation = torch.corrcoef(leaves) - torch.eye(len(leaves))
    assert correlation.abs().max() < 0.1


def test_batch_number_n_holds_its_samples():
    source = PromptSource(("koala", "fox", "pizza"), seed=3)
    small = SampleBatch(source, 3, 2, SHAPE, WINDOWS)
    large = SampleBatch(source, 3, 6, SHAPE, WINDOWS)
    whole, third = large(1), small(4)  # samples 6 to 11, of which 8 and 9
    assert torch.equal(whole.draws.eps[2:4], third.draws.eps)
    assert whole.drawn.texts[2:4] == third.drawn.texts
