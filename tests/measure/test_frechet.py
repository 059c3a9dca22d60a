import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flowsteer.measure import frechet_distance, frechet_from_moments


def gaussian(d, seed):
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(d, d, generator=generator, dtype=torch.float64)
    return torch.randn(d, generator=generator, dtype=torch.float64), root @ root.T


def test_diagonal_gaussians_have_the_closed_form():
    mean_a, mean_b = torch.tensor([0.0, 1.0, 2.0]), torch.tensor([1.0, 1.0, -1.0])
    std_a, std_b = torch.tensor([1.0, 2.0, 0.5]), torch.tensor([3.0, 2.0, 1.5])
    truth = (mean_a - mean_b).square().sum() + (std_a - std_b).square().sum()
    found = frechet_from_moments(mean_a, std_a.square().diag(), mean_b, std_b.square().diag())
    assert found == pytest.approx(float(truth), rel=1e-10)


@pytest.mark.parametrize("d", [1, 5, 40])
def test_matches_the_eigenvalues_of_the_plain_product(d):
    (mean_a, a), (mean_b, b) = gaussian(d, 0), gaussian(d, 1)
    # tr (AB)^(1/2) is the sum of the roots of AB's eigenvalues, symmetric or not
    cross = torch.linalg.eigvals(a @ b).real.clamp(min=0).sqrt().sum()
    truth = (mean_a - mean_b).square().sum() + a.trace() + b.trace() - 2 * cross
    assert frechet_from_moments(mean_a, a, mean_b, b) == pytest.approx(float(truth), rel=1e-8)


def test_samples_approach_the_distance_of_their_distributions():
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(200_000, 3, generator=generator)
    b = 2 * torch.randn(200_000, 3, generator=generator) + torch.tensor([1.0, 0.0, 0.0])
    assert frechet_distance(a, b) == pytest.approx(1 + 3, rel=0.02)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 20), st.integers(1, 8))
def test_is_symmetric_never_negative_and_zero_on_itself(seed, n, d):
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(n, d, generator=generator)
    b = torch.randn(n + 3, d, generator=generator) + 1
    there, back = frechet_distance(a, b), frechet_distance(b, a)
    assert there >= 0
    assert there == pytest.approx(back, rel=1e-5, abs=1e-5)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-5)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.1, 10))
def test_scales_with_the_square_and_ignores_rotation(seed, scale):
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(30, 4, generator=generator, dtype=torch.float64)
    b = torch.randn(30, 4, generator=generator, dtype=torch.float64) + 2
    turn = torch.linalg.qr(torch.randn(4, 4, generator=generator, dtype=torch.float64)).Q
    plain = frechet_distance(a, b)
    assert frechet_distance(scale * a @ turn, scale * b @ turn) == pytest.approx(
        scale**2 * plain, rel=1e-6
    )


def test_fewer_samples_than_dimensions_still_give_a_finite_distance():
    a, b = torch.randn(5, 64, generator=torch.Generator().manual_seed(0)), torch.zeros(5, 64)
    distance = frechet_distance(a, b)
    truth = a.double().mean(0).square().sum() + a.double().var(0).sum()  # b has no spread
    assert distance == pytest.approx(float(truth), rel=1e-8)


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        (torch.zeros(4), torch.zeros(4, 4), "shape"),
        (torch.zeros(1, 4), torch.zeros(4, 4), "at least 2"),
        (torch.zeros(4, 3), torch.zeros(4, 4), "widths 3 and 4"),
        (torch.full((4, 4), torch.nan), torch.zeros(4, 4), "NaN"),
    ],
)
def test_bad_features_are_refused(a, b, words):
    with pytest.raises(ValueError, match=words):
        frechet_distance(a, b)
