import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flowsteer.measure import psnr, relative_l2


def test_relative_l2_is_the_ratio_of_norms_sample_by_sample():
    reference = torch.tensor([[[3.0, 4.0]], [[0.0, 2.0]]])
    x = torch.tensor([[[3.0, 9.0]], [[0.0, 2.0]]])
    assert relative_l2(x, reference).tolist() == [1.0, 0.0]


def test_relative_l2_to_nothing_is_infinite_unless_both_are_nothing():
    zero = torch.zeros(2, 3)
    x = torch.stack([torch.ones(3), torch.zeros(3)])
    assert relative_l2(x, zero).tolist() == [float("inf"), 0.0]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.floats(-3, 3), st.floats(0.01, 100))
def test_relative_l2_of_a_scaled_reference(seed, factor, unit):
    reference = unit * torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(seed)).double()
    found = relative_l2(factor * reference, reference)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, torch.full_like(found, abs(factor - 1)), atol=1e-9, rtol=1e-9)


def test_relative_l2_needs_equal_shapes():
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(3, 2\)"):
        relative_l2(torch.zeros(2, 3), torch.zeros(3, 2))


def test_psnr_of_a_constant_error():
    images = torch.zeros(2, 3, 4, 4)
    # an error of 0.2 in a range of 2 is a tenth: 20 dB
    assert psnr(images + 0.2, images) == pytest.approx(20, abs=1e-4)


def test_psnr_is_the_mean_of_the_pictures_own_not_of_the_pooled_error():
    reference = torch.zeros(2, 1, 2, 2)
    images = torch.stack([torch.full((1, 2, 2), 0.2), torch.full((1, 2, 2), 0.02)])
    assert psnr(images, reference) == pytest.approx((20 + 40) / 2, abs=1e-3)


def test_psnr_clamps_as_saving_would():
    white = torch.ones(1, 3, 2, 2)
    assert psnr(white * 1.5, white) == float("inf")


@pytest.mark.parametrize("shape", [(3, 4, 4), (0, 3, 4, 4)])
def test_psnr_refuses_what_is_no_batch_of_pictures(shape):
    with pytest.raises(ValueError, match="shapes"):
        psnr(torch.zeros(shape), torch.zeros(shape))
