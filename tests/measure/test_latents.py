"""The distance of latents against closed forms, and the invariances that it promises."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flowsteer.measure import latent_distance


def normal(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_gaussians_that_differ_in_mean_and_spread_have_the_closed_form():
    """In two dimensions: |mu|^2 + sum (s_a - s_b)^2, over the mean of both total variances."""
    a = normal(200_000, 2) * torch.tensor([1.0, 3.0])
    b = normal(200_000, 2, 1) * torch.tensor([2.0, 3.0]) + torch.tensor([0.5, 1.0])
    truth = (0.25 + 1 + 1) / ((1 + 9 + 4 + 9) / 2)
    assert latent_distance(a, b) == pytest.approx(truth, rel=0.02)


def test_only_the_leading_directions_count():
    """A shift in the direction of least variance is seen with three directions, not with two."""
    spread = torch.tensor([10.0, 5.0, 0.1], dtype=torch.float64)
    a = normal(4_000, 3) * spread
    b = a + torch.tensor([0.0, 0.0, 1.0])
    assert latent_distance(a, b, 2) < 1e-3 * latent_distance(a, b, 3)
    truth = 1 / float(spread.square().sum())
    assert latent_distance(a, b, 3) == pytest.approx(truth, rel=0.05)


def test_many_dimensions_and_few_samples_agree_with_the_plain_route():
    """Fewer samples than dimensions take the other Gram matrix; padding with zeros forces it."""
    a, b = normal(40, 5), normal(30, 5, 1) + 1
    wide_a, wide_b = (torch.cat([x, x.new_zeros(len(x), 200)], 1) for x in (a, b))
    assert latent_distance(wide_a, wide_b) == pytest.approx(latent_distance(a, b), rel=1e-8)


def test_states_of_pictures_differ_more_than_two_draws_of_the_same():
    a, same = normal(300, 1024), normal(300, 1024, 1)
    other = normal(300, 1024, 2)
    other[:, :8] += 2.0  # as a background that is too bright
    assert latent_distance(a, other) > 1.2 * latent_distance(a, same)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.1, 10), st.integers(1, 6))
def test_scale_and_rotation_change_nothing_and_both_sets_are_alike(seed, scale, directions):
    a, b = normal(25, 6, seed), normal(20, 6, seed + 1) + 2
    turn = torch.linalg.qr(normal(6, 6, seed + 2)).Q
    plain = latent_distance(a, b, directions)
    assert plain > 0
    assert latent_distance(b, a, directions) == pytest.approx(plain, rel=1e-6)
    assert latent_distance(scale * a @ turn, scale * b @ turn, directions) == pytest.approx(
        plain, rel=1e-6
    )


def test_equal_sets_are_at_distance_0_and_pictures_need_not_be_flat():
    a = normal(12, 48).view(12, 3, 4, 4)
    assert latent_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert latent_distance(a, a.flip(0)) == pytest.approx(0, abs=1e-9)
    assert latent_distance(torch.ones(3, 2), torch.ones(4, 2)) == 0


@pytest.mark.parametrize(
    ("a", "b", "directions", "words"),
    [
        (torch.zeros(4, 3), torch.zeros(4, 2), 8, "do not compare"),
        (torch.zeros(4, 3), torch.zeros(4, 3), 0, "at least 1 direction"),
        (torch.randn(1, 3), torch.randn(4, 3), 8, "at least 2"),
        (torch.full((4, 3), torch.nan), torch.zeros(4, 3), 8, "NaN"),
    ],
)
def test_bad_latents_are_refused(a, b, directions, words):
    with pytest.raises(ValueError, match=words):
        latent_distance(a, b, directions)
