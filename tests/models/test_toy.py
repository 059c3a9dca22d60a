"""The toy student and its backbone: shapes, conditions, and that they learn."""

import copy

import pytest
import torch

from flowsteer.distill.critic import TrajectoryCritic
from flowsteer.flow import GaussianMixture, guided, interpolate
from flowsteer.models.toy import ToyBackbone, ToyField

MIXTURE = GaussianMixture(
    torch.tensor([[2.0, 0.0], [-2.0, 1.0]]), torch.full((2,), 0.4), torch.ones(2)
)


def points(n=8, dim=2):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, dim, generator=generator), torch.rand(n, generator=generator)


@pytest.mark.parametrize("dim", [1, 2, 5])
def test_velocity_has_the_points_shape_and_samples_do_not_mix(dim):
    torch.manual_seed(0)
    field, (x, t) = ToyField(dim), points(8, dim)
    v = field(x, t, None)
    assert v.shape == (8, dim)
    torch.testing.assert_close(field(x[:3], t[:3]), v[:3])
    assert (field(x, 1 - t) - v).norm() > 0.01


def test_conditions_are_those_of_the_gaussian_mixture():
    torch.manual_seed(0)
    field, (x, t) = ToyField(num_conditions=2), points()
    every = torch.full((8,), -1)
    torch.testing.assert_close(field(x, t, every), field(x, t, None))
    for number in (0, 1):
        assert (field(x, t, torch.full((8,), number)) - field(x, t)).norm() > 0.01
    for wrong in (2, -2):
        with pytest.raises(ValueError, match=r"give -1 \(all\) to 1"):
            field(x, t, torch.tensor([0, 1, 0, 1, 0, 1, 0, wrong]))
    # so that guidance works alike for both
    scaled = guided(field, 2.0, torch.tensor([-1]))(x, t, torch.zeros(8, dtype=torch.int64))
    v_u, v_c = field(x, t), field(x, t, torch.zeros(8, dtype=torch.int64))
    torch.testing.assert_close(scaled, v_u + 2 * (v_c - v_u))


def test_it_learns_the_mixtures_conditional_velocity():
    torch.manual_seed(0)
    field, generator = ToyField(num_conditions=2), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(field.parameters(), lr=5e-3)

    def error():
        k = torch.randint(-1, 2, (256,), generator=generator)
        x_0, eps = MIXTURE.sample(256, generator), torch.randn(256, 2, generator=generator)
        t = torch.rand(256, generator=generator)
        x = interpolate(x_0, eps, t)
        return (field(x, t, k) - MIXTURE.velocity(x, t, k)).square().mean()

    before = error().item()
    for _ in range(200):
        loss = error()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert error().item() < before / 20


def test_the_backbone_shows_what_the_field_computes():
    torch.manual_seed(0)
    field, (x, t) = ToyField(width=16, depth=3), points()
    backbone = ToyBackbone(field)
    features, told = backbone(x, t, None)
    assert (backbone.width, backbone.cond_width, backbone.depth) == (16, 16, 3)
    assert [tuple(f.shape) for f in features] == [(8, 1, 16)] * 3
    assert told.shape == (8, 16)
    v = field.to_velocity(torch.nn.functional.silu(features[-1][:, 0]))
    torch.testing.assert_close(v, field(x, t))


def test_a_critic_reads_every_block():
    torch.manual_seed(0)
    field, (x, t) = ToyField(width=16, depth=3), points()
    critic = TrajectoryCritic(ToyBackbone(copy.deepcopy(field)), heads="each")
    judged = critic(x, t, None)
    assert judged.logits.shape == (8, 3) and judged.features.shape == (8, 3, 1, 16)
