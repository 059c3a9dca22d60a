"""Fields: the mixture's closed form against sampling, and guidance against its formula."""

from typing import NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from flowsteer.flow import (
    GaussianMixture,
    guided,
    heun_step,
    interpolate,
    rectified_grid,
    rollout,
    velocity,
)

MIXTURE = GaussianMixture(
    means=torch.tensor([[2.0, 0.0], [-1.0, 1.0], [0.0, -2.0]], dtype=torch.float64),
    std=torch.tensor([0.3, 0.5, 0.8], dtype=torch.float64),
    weights=torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64),
)
ALL = torch.tensor([-1])


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def times(t: float, n: int) -> Tensor:
    return torch.full((n,), t, dtype=torch.float64)


@pytest.mark.parametrize("t", [0.05, 0.3, 0.5, 0.9, 1.0])
def test_closed_form_is_the_conditional_mean_of_sampled_velocities(t: float) -> None:
    n = 400_000
    x_0, eps = MIXTURE.sample(n, torch.Generator().manual_seed(1)), randn(n, 2, seed=2)
    x_t, v = interpolate(x_0, eps, t), velocity(x_0, eps)
    # E[v | x_t] is the field if, and only if, v - field(x_t) has mean 0 against functions of x_t
    residual = v - MIXTURE.velocity(x_t, times(t, n), None)
    tests = torch.stack([torch.ones(n), *x_t.T, *x_t.sin().T, *(x_t**2).T, x_t.prod(1)])  # (8, n)
    products = tests[:, None] * residual.T  # (8, 2, n)
    z_scores = products.mean(-1) / (products.std(-1) / n**0.5)
    assert z_scores.abs().max() < 4


def test_closed_form_by_importance_weights_at_single_points() -> None:
    n, t = 400_000, 0.6
    x_0 = MIXTURE.sample(n, torch.Generator().manual_seed(3))
    for x in randn(4, 2, seed=4):
        eps = (x - (1 - t) * x_0) / t
        weights = (-eps.square().sum(1) / 2).softmax(0)
        expected = (weights[:, None] * (eps - x_0)).sum(0)
        assert_close(MIXTURE.velocity(x[None], times(t, 1))[0], expected, atol=0.02, rtol=0)


def test_the_flow_carries_noise_to_the_mixture() -> None:
    x = rollout(MIXTURE.velocity, randn(4000, 2, seed=5), rectified_grid(100), step=heun_step).end
    data = MIXTURE.sample(4000, torch.Generator().manual_seed(6))
    assert_close(x.mean(0), data.mean(0), atol=0.1, rtol=0)
    assert_close(x.T.cov(), data.T.cov(), atol=0.2, rtol=0)


def test_both_ends_are_finite_and_known() -> None:
    x = randn(5, 2)
    mean = MIXTURE.weights @ MIXTURE.means
    assert_close(MIXTURE.velocity(x, times(1, 5)), x - mean)
    assert_close(MIXTURE.velocity(x, times(0, 5)), -x)


@given(
    st.floats(0, 1),
    st.lists(st.floats(-50, 50), min_size=2, max_size=2),
    st.lists(st.floats(0, 3), min_size=3, max_size=3),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_the_field_is_finite_everywhere(
    t: float, x: list[float], std: list[float], dtype: torch.dtype
) -> None:
    mixture = GaussianMixture(MIXTURE.means, torch.tensor(std), MIXTURE.weights)
    v = mixture.velocity(torch.tensor([x], dtype=dtype), torch.tensor([t], dtype=dtype))
    assert v.dtype == dtype and bool(v.isfinite().all())


@given(st.floats(0.01, 1), st.integers(0, 1000))
def test_the_field_lies_among_those_of_its_components(t: float, seed: int) -> None:
    x_t, t_b = randn(8, 2, seed=seed), times(t, 8)
    v = MIXTURE.velocity(x_t, t_b)
    own = torch.stack([MIXTURE.velocity(x_t, t_b, torch.full((8,), k)) for k in range(3)])
    assert bool((v <= own.amax(0) + 1e-9).all()) and bool((v >= own.amin(0) - 1e-9).all())


def test_a_condition_chooses_one_component_per_sample() -> None:
    x, t = randn(4, 2), times(0.7, 4)
    chosen = MIXTURE.velocity(x, t, torch.tensor([0, 1, 2, -1]))
    for k in range(3):
        alone = GaussianMixture(
            MIXTURE.means[k : k + 1], MIXTURE.std[k : k + 1], MIXTURE.weights[k : k + 1]
        )
        assert_close(chosen[k], alone.velocity(x, t)[k])
    assert_close(chosen[3], MIXTURE.velocity(x, t)[3])
    for bad in (3, -2):
        with pytest.raises(ValueError, match=r"-1 \(all\) to 2"):
            MIXTURE.velocity(x, t, torch.full((4,), bad))


@pytest.mark.parametrize(
    ("means", "std", "weights"),
    [
        (torch.zeros(2), torch.ones(2), torch.ones(2)),
        (torch.zeros(2, 3), torch.ones(3), torch.ones(2)),
        (torch.zeros(2, 3), torch.tensor([1.0, -1.0]), torch.ones(2)),
        (torch.zeros(2, 3), torch.ones(2), torch.tensor([1.0, 0.0])),
    ],
)
def test_a_bad_mixture_is_refused(means: Tensor, std: Tensor, weights: Tensor) -> None:
    with pytest.raises(ValueError, match="must"):
        GaussianMixture(means, std, weights)


@pytest.mark.parametrize("scale", [0.0, 3.0, torch.tensor([0.0, 1.0, 3.0, 7.5])])
def test_guidance_is_its_formula(scale: float | Tensor) -> None:
    x, t, cond = randn(4, 2), times(0.7, 4), torch.tensor([0, 1, 2, 0])
    v_u, v_c = MIXTURE.velocity(x, t), MIXTURE.velocity(x, t, cond)
    factor = scale[:, None] if isinstance(scale, Tensor) else scale
    expected = v_u + factor * (v_c - v_u)
    assert_close(guided(MIXTURE.velocity, scale, ALL)(x, t, cond), expected, check_dtype=False)
    assert_close(
        guided(MIXTURE.velocity, scale, ALL.expand(4))(x, t, cond), expected, check_dtype=False
    )


def test_guidance_scale_one_costs_nothing() -> None:
    field = MIXTURE.velocity
    for scale in (1, 1.0):
        assert guided(field, scale, ALL) is field


class Text(NamedTuple):
    tokens: Tensor
    pooled: Tensor


@pytest.mark.parametrize("make", [Text, lambda *leaves: leaves])
def test_guidance_makes_one_call_and_keeps_the_structure_of_conditions(make) -> None:
    calls = []

    def field(x: Tensor, t: Tensor, cond: tuple[Tensor, Tensor]) -> Tensor:
        calls.append(cond)
        return cond[0].mean(1) + cond[1] + x

    cond, empty = make(randn(3, 5, 2), randn(3, 2)), make(randn(1, 5, 2), randn(1, 2))
    v = guided(field, 2.0, empty)(randn(3, 2), times(0.5, 3), cond)
    (both,) = calls
    assert type(both) is type(cond)
    assert torch.equal(both[0], torch.cat([empty[0].expand(3, 5, 2), cond[0]]))
    v_u, v_c = (field(randn(3, 2), times(0.5, 3), c) for c in (empty, cond))
    assert_close(v, v_u + 2 * (v_c - v_u))


def test_guidance_in_bfloat16_is_combined_in_float32() -> None:
    def rough(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        return (cond[:, None] + torch.zeros_like(x)).bfloat16()

    v = guided(rough, 7.0, torch.tensor([1.0]))(
        randn(1, 1), times(0.5, 1), torch.tensor([1.0078125])
    )
    assert v.dtype == torch.float32
    assert v.item() == 1 + 7 * 0.0078125


@pytest.mark.parametrize(
    ("cond", "match"),
    [
        (None, "NoneType"),
        ((torch.zeros(4),), "tuple"),
        (torch.zeros(3, dtype=torch.long), "batch of 4"),
    ],
)
def test_a_condition_that_does_not_match_the_empty_one_is_refused(cond, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        guided(MIXTURE.velocity, 3.0, ALL)(randn(4, 2), times(0.5, 4), cond)


@pytest.mark.parametrize(("t", "cond"), [(0.0, -1), (0.4, -1), (1.0, -1), (0.3, 2)])
def test_density_integrates_to_one_and_is_that_of_samples(t: float, cond: int) -> None:
    line = torch.linspace(-7, 7, 281, dtype=torch.float64)
    points = torch.cartesian_prod(line, line)
    conditions = torch.full((len(points),), cond)
    density = MIXTURE.velocity.log_density(points, times(t, len(points)), conditions).exp()
    mass = density * (line[1] - line[0]) ** 2
    assert mass.sum().item() == pytest.approx(1, abs=1e-3)
    mean = MIXTURE.means[cond] if cond >= 0 else MIXTURE.weights @ MIXTURE.means
    assert_close((mass[:, None] * points).sum(0), (1 - t) * mean, atol=2e-3, rtol=0)
