"""Distribution matching against exact fields: the KL's slope, and what the fake field learns."""

import math

import pytest
import torch
from torch import nn

from flowsteer.distill.distribution import (
    LEAST_TIME,
    Noising,
    WindowEnds,
    distribution_matching_loss,
    fake_field_loss,
    noised_forward,
    noising_times,
    window_ends,
)
from flowsteer.distill.starts import own_states
from flowsteer.flow import GaussianMixture, TimeWindows, interpolate, rollout

WINDOWS = TimeWindows((1.0, 0.9, 0.75, 0.5, 0.0))
CURVED = GaussianMixture(
    torch.tensor([[2.0, 0.0], [-2.0, 1.0], [0.0, -2.0]]), torch.full((3,), 0.3), torch.ones(3)
)
TWO_HILLS = GaussianMixture(
    torch.tensor([[-1.0], [1.5]], dtype=torch.float64),
    torch.tensor([0.3, 0.5], dtype=torch.float64),
    torch.tensor([1.0, 2.0], dtype=torch.float64),
)


def moved(mixture, shift):
    return GaussianMixture(mixture.means + shift, mixture.std, mixture.weights)


def draw(mixture, count, t_lo, seed=0):
    """States of the mixture's own path at t_lo, the times there, and what noises them forward."""
    generator = torch.Generator().manual_seed(seed)
    x_0 = mixture.sample(count, generator)
    eps, noise = torch.randn(2, *x_0.shape, generator=generator, dtype=x_0.dtype)
    t_lo = torch.full((count,), t_lo, dtype=x_0.dtype)
    uniform = torch.rand(count, generator=generator, dtype=x_0.dtype)
    return interpolate(x_0, eps, t_lo), t_lo, Noising(noising_times(uniform, t_lo), noise)


def at(noising, t):
    return Noising(torch.full_like(noising.t, t), noising.noise)


@pytest.mark.parametrize(("t_lo", "t"), [(0.0, 0.3), (0.5, 0.6), (0.5, 1.0), (0.75, 0.9)])
def test_noising_forward_leads_to_the_path_s_own_distribution(t_lo, t):
    """Mean and variance of one Gaussian: (1 - t) mu and ((1 - t) s)^2 + t^2."""
    mixture = GaussianMixture(torch.tensor([[3.0]]), torch.tensor([0.5]), torch.ones(1))
    x_lo, t_lo, noising = draw(mixture, 200_000, t_lo)
    x_t = noised_forward(x_lo, t_lo, at(noising, t))
    assert x_t.mean().item() == pytest.approx(3 * (1 - t), abs=0.01)
    assert x_t.var().item() == pytest.approx((0.5 * (1 - t)) ** 2 + t**2, rel=0.02)


def test_no_time_adds_no_noise():
    x_lo, t_lo, noising = draw(CURVED, 8, 0.5)
    torch.testing.assert_close(noised_forward(x_lo, t_lo, at(noising, 0.5)), x_lo)


def test_times_fill_what_lies_between():
    uniform, t_lo = torch.tensor([0.0, 0.5, 0.999]), torch.tensor([0.0, 0.5, 0.9])
    assert noising_times(uniform, t_lo).tolist() == pytest.approx([LEAST_TIME, 0.75, 0.9999])
    halfway = noising_times(uniform, t_lo, torch.tensor([0.5, 0.6, 1.0]))
    assert halfway.tolist() == pytest.approx([LEAST_TIME, 0.55, 0.9999])


def ends_one_away(x_lo, t_lo, noising, teacher):
    """Predictions that differ by 1 from the teacher's, so that the gradient is not scaled."""
    x_t = noised_forward(x_lo, t_lo, noising)
    seen = x_t - noising.t[:, None] * teacher(x_t, noising.t)
    return WindowEnds(x_lo, (seen + 1).requires_grad_(), t_lo)


def gradient(ends, fake, teacher, noising, cond=None):
    loss = distribution_matching_loss(ends, fake, teacher, noising, cond)
    return torch.autograd.grad(loss, ends.x_0)[0] * ends.x_0.numel()


@pytest.mark.parametrize(("t_lo", "t"), [(0.0, 0.2), (0.0, 0.7), (0.5, 0.8)])
@pytest.mark.parametrize("shift", [0.4, -0.8])
def test_gradient_is_the_slope_of_the_kl(t_lo, t, shift):
    """KL(student || teacher) at time t, by quadrature, as the student's data are shifted.

    d/dshift = E[(1 - t) (score_student - score_teacher)] and score = ((1 - t) x_0 - x_t) / t^2.
    """
    grid = torch.linspace(-8, 8, 20_001, dtype=torch.float64)[:, None]
    times = torch.full((len(grid),), t, dtype=torch.float64)

    def kl(by):
        own = moved(TWO_HILLS, by).velocity.log_density(grid, times)
        wanted = TWO_HILLS.velocity.log_density(grid, times)
        return float((own.exp() * (own - wanted)).sum() * 16 / 20_000)

    slope = (kl(shift + 1e-3) - kl(shift - 1e-3)) / 2e-3
    student = moved(TWO_HILLS, shift)
    x_lo, t_lo, noising = draw(student, 100_000, t_lo)
    noising = at(noising, t)
    teacher = TWO_HILLS.velocity
    g = gradient(ends_one_away(x_lo, t_lo, noising, teacher), student.velocity, teacher, noising)
    assert (1 - t) ** 2 / t**2 * g.mean().item() == pytest.approx(slope, rel=0.05)
    assert slope * shift > 0  # downhill is where the teacher's data are


@pytest.mark.parametrize("t_lo", [0.0, 0.75])
def test_a_student_at_its_teacher_s_distribution_is_left_alone(t_lo):
    x_lo, t_lo, noising = draw(CURVED, 64, t_lo)
    exact = CURVED.velocity
    assert not gradient(ends_one_away(x_lo, t_lo, noising, exact), exact, exact, noising).any()


def test_gradient_is_scaled_by_each_sample_s_own_error():
    """A prediction three times as far from the teacher's is moved a third as much."""
    x_lo, t_lo, noising = draw(moved(CURVED, 0.5), 16, 0.5)
    fake, teacher = moved(CURVED, 0.5).velocity, CURVED.velocity
    near = ends_one_away(x_lo, t_lo, noising, teacher)
    apart = torch.tensor([1.0, 3.0]).repeat(8)[:, None]
    far = WindowEnds(x_lo, (near.x_0.detach() + apart - 1).requires_grad_(), t_lo)
    got = gradient(far, fake, teacher, noising)
    torch.testing.assert_close(got * apart, gradient(near, fake, teacher, noising))


def test_both_fields_are_told_the_prompt():
    told = []

    def field(x, t, cond):
        told.append(cond)
        return CURVED.velocity(x, t, cond)

    x_lo, t_lo, noising = draw(CURVED, 4, 0.5)
    cond = torch.tensor([0, 1, 2, -1])
    ends = WindowEnds(x_lo, x_lo.clone().requires_grad_(), t_lo)
    distribution_matching_loss(ends, field, field, noising, cond)
    fake_field_loss(field, x_lo, t_lo, noising, cond)
    assert len(told) == 3 and all(each is cond for each in told)


def test_the_fake_field_learns_by_flow_matching_from_data():
    x_0, t_lo, noising = draw(CURVED, 32, 0.0)
    field = moved(CURVED, 0.5).velocity
    x_t = interpolate(x_0, noising.noise, noising.t)
    expected = (field(x_t, noising.t) - (noising.noise - x_0)).square().mean()
    torch.testing.assert_close(fake_field_loss(field, x_0, t_lo, noising), expected)


class Bent(nn.Module):
    """An exact field with errors: a constant one and one along the state."""

    def __init__(self, mixture, constant=0.0, along=0.0):
        super().__init__()
        self.field = mixture.velocity
        self.constant = nn.Parameter(torch.tensor(constant, dtype=torch.float64))
        self.along = nn.Parameter(torch.tensor(along, dtype=torch.float64))

    def forward(self, x, t, cond):
        return self.field(x, t, cond) + self.constant + self.along * x


@pytest.mark.parametrize("t_lo", WINDOWS.edges[1:])
def test_the_exact_field_is_what_the_fake_field_loss_asks_for(t_lo):
    """Its expected slope is zero there, at every window's end, and far from zero beside it."""
    share = 1 - t_lo
    x_lo, t_lo, noising = draw(TWO_HILLS, 200_000, t_lo)
    slopes = []
    for field in (Bent(TWO_HILLS), Bent(TWO_HILLS, 0.2, 0.1)):
        loss = fake_field_loss(field, x_lo, t_lo, noising)
        slopes.append(torch.autograd.grad(loss, field.parameters()))
    for exact, beside in zip(*slopes, strict=True):
        assert abs(exact) < 0.01 * share and beside > 0.1 * share**2


@pytest.mark.parametrize("t_lo", [0.5, 0.9])
def test_the_fake_field_s_error_counts_by_the_share_of_fresh_noise(t_lo):
    """A constant error c adds (1 - t_lo)^2 r^2 c^2, r^2 = 1 - (t_lo (1 - t) / (t (1 - t_lo)))^2."""
    t = (1 + t_lo) / 2
    x_lo, t_lo, noising = draw(TWO_HILLS, 200_000, t_lo)
    losses = [
        fake_field_loss(Bent(TWO_HILLS, c), x_lo, t_lo, at(noising, t)).item() for c in (2.0, -2.0)
    ]
    exact = fake_field_loss(Bent(TWO_HILLS), x_lo, t_lo, at(noising, t)).item()
    t_lo = t_lo[0].item()
    r_squared = 1 - (t_lo * (1 - t) / (t * (1 - t_lo))) ** 2
    assert sum(losses) / 2 - exact == pytest.approx(4 * (1 - t_lo) ** 2 * r_squared, rel=1e-4)


def test_the_fake_field_learns_without_moving_the_student():
    x_lo, t_lo, noising = draw(CURVED, 8, 0.5)
    x_lo.requires_grad_()
    field = Bent(CURVED)
    fake_field_loss(field, x_lo, t_lo, noising).backward()
    assert x_lo.grad is None and field.constant.grad is not None


class Erring(nn.Module):
    def __init__(self, mixture, error):
        super().__init__()
        self.field, self.error, self.calls = mixture.velocity, nn.Parameter(error), 0

    def forward(self, x, t, cond):
        self.calls += 1
        return self.field(x, t, cond) + self.error


def test_ends_lie_on_the_student_s_own_path():
    student = Erring(CURVED, torch.tensor([0.3, -0.2]))
    eps = torch.randn(8, 2, generator=torch.Generator().manual_seed(1))
    edge = torch.arange(8) % 4
    states = own_states(student, eps, WINDOWS)
    assert student.calls == 3 and not any(x.requires_grad for x in states)
    ends = window_ends(student, states, edge, WINDOWS)
    assert student.calls == 4
    path = rollout(student, eps, WINDOWS.edges).states
    torch.testing.assert_close(ends.x_lo, path[edge + 1, torch.arange(8)])
    torch.testing.assert_close(torch.stack(states), path[:-1])
    times = torch.tensor(WINDOWS.edges)
    v = student(path[edge, torch.arange(8)], times[edge], None)
    data = path[edge, torch.arange(8)] - times[edge][:, None] * v
    torch.testing.assert_close(ends.x_0, data)
    torch.testing.assert_close(ends.t_lo, times[edge + 1])
    # one call counts: x_0 = x_hi - t_hi v
    (slope,) = torch.autograd.grad(ends.x_0[:, 0].sum(), student.error)
    assert slope[0].item() == pytest.approx(-times[edge].sum().item())


def test_a_short_run_brings_the_student_to_the_teacher():
    """A constant error of 1.2 falls below a fifth, with a fake field that starts at the teacher's.

    An error e of the velocity shifts the data by -e at each window's end, so that a field with one
    shift for all times can follow it.
    """
    teacher = GaussianMixture(torch.tensor([[1.0, -1.0]]), torch.tensor([0.1]), torch.ones(1))
    student = Erring(teacher, torch.tensor([1.0, -0.6]))
    shift = torch.zeros(2, requires_grad=True)

    def fake(x, t, cond):
        return moved(teacher, shift).velocity(x, t, cond)

    windows = TimeWindows((1.0, 0.5, 0.0))
    descent = torch.optim.Adam(student.parameters(), lr=2e-2, betas=(0.0, 0.95))
    follow = torch.optim.Adam([shift], lr=5e-2, betas=(0.0, 0.95))
    generator = torch.Generator().manual_seed(0)
    before = student.error.detach().norm()
    for _ in range(120):
        eps, noise, again = torch.randn(3, 64, 2, generator=generator)
        uniform = torch.rand(2, 64, generator=generator)
        states = own_states(student, eps, windows)
        ends = window_ends(student, states, torch.arange(64) % 2, windows)
        noising = Noising(noising_times(uniform[0], ends.t_lo), noise)
        descent.zero_grad()
        distribution_matching_loss(ends, fake, teacher.velocity, noising).backward()
        descent.step()
        follow.zero_grad()
        noising = Noising(noising_times(uniform[1], ends.t_lo), again)
        fake_field_loss(fake, ends.x_lo, ends.t_lo, noising).backward()
        follow.step()
    assert student.error.detach().norm() < before / 5
    assert math.dist(shift.tolist(), (-student.error).tolist()) < 0.2  # it has followed


def test_losses_are_float32_whatever_the_fields_compute_in():
    def half(x, t, cond):
        return CURVED.velocity(x, t, cond).bfloat16()

    x_lo, t_lo, noising = draw(CURVED, 8, 0.5)
    ends = WindowEnds(x_lo, x_lo.clone().requires_grad_(), t_lo)
    assert distribution_matching_loss(ends, half, half, noising).dtype == torch.float32
    assert fake_field_loss(half, x_lo, t_lo, noising).dtype == torch.float32
