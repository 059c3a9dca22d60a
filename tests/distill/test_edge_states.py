"""The states that the critic compares, on the exact Gaussian mixture."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from flowsteer.distill import Batch, Solve, authentic_starts
from flowsteer.distill.adversarial import edge_states
from flowsteer.flow import GaussianMixture, TimeWindows, euler_step, rollout

WINDOWS = TimeWindows((1.0, 0.9, 0.75, 0.5, 0.0))
SOLVE = Solve(substeps=7, shift=3.0)
CURVED = GaussianMixture(
    torch.tensor([[2.0, 0.0], [-2.0, 1.0], [0.0, -2.0]]), torch.full((3,), 0.2), torch.ones(3)
)
POINT = GaussianMixture(torch.tensor([[1.0, -1.0]]), torch.zeros(1), torch.ones(1))


class Student(nn.Module):
    """The exact field of a mixture, plus a constant error."""

    def __init__(self, mixture, error=(0.0, 0.0)):
        super().__init__()
        self.field, self.error = mixture.velocity, nn.Parameter(torch.tensor(error))
        self.calls = []

    def forward(self, x, t, cond):
        self.calls.append((t, torch.is_grad_enabled()))
        return self.field(x, t, cond) + self.error


def make_batch(count=64, seed=0, cond=None):
    generator = torch.Generator().manual_seed(seed)
    eps = torch.randn(count, 2, generator=generator)
    return Batch(eps, torch.rand(4, count, generator=generator), cond, edge=torch.arange(count) % 4)


def cross(mixture, batch):
    return list(authentic_starts(mixture.velocity, batch, WINDOWS, SOLVE))


@pytest.mark.parametrize("own_rollout", [False, True])
def test_states_on_straight_paths_by_hand(own_rollout):
    """One point mu: x_t = (1 - t) mu + t eps, and one Euler step of the exact field is exact."""
    batch = make_batch()
    states = edge_states(Student(POINT), cross(POINT, batch), batch, own_rollout)
    t = torch.tensor([0.9, 0.75, 0.5, 0.0])[batch.edge]
    expected = (1 - t[:, None]) * POINT.means + t[:, None] * batch.eps
    torch.testing.assert_close(states.t, t)
    torch.testing.assert_close(states.real, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(states.fake, expected, rtol=1e-5, atol=1e-5)


def test_states_on_curved_paths_one_step_from_the_teacher():
    batch = make_batch()
    segments = cross(CURVED, batch)
    states = edge_states(Student(CURVED, (0.3, 0.0)), segments, batch)
    for i, k in enumerate(batch.edge.tolist()):
        s = segments[k]
        v = CURVED.velocity(s.x_hi[i, None], torch.tensor([s.t_hi])) + torch.tensor([[0.3, 0.0]])
        torch.testing.assert_close(states.real[i], s.x_lo[i])
        torch.testing.assert_close(
            states.fake[i, None], s.x_hi[i, None] + (s.t_lo - s.t_hi) * v, rtol=1e-5, atol=1e-5
        )


def test_own_states_are_the_plain_rollout_of_the_student():
    batch = make_batch()
    student = Student(CURVED, (0.3, -0.2))
    states = edge_states(student, cross(CURVED, batch), batch, own_rollout=True)
    path = rollout(student, batch.eps, WINDOWS.edges).states
    expected = path[batch.edge + 1, torch.arange(64)]
    torch.testing.assert_close(states.fake, expected, rtol=1e-5, atol=1e-5)
    from_teacher = edge_states(student, cross(CURVED, batch), batch).fake
    gap = (states.fake - from_teacher).norm(dim=1)
    # only in the first window are both the same
    assert gap[batch.edge == 0].max() < 1e-6 and gap[batch.edge > 0].min() > 1e-3


@pytest.mark.parametrize("own_rollout", [False, True])
def test_gradient_flows_through_the_last_step_alone(own_rollout):
    """d fake / d error = t_lo - t_hi of that step; through the whole rollout it would be more."""
    batch = make_batch()
    student = Student(CURVED)
    states = edge_states(student, cross(CURVED, batch), batch, own_rollout)
    states.fake.sum().backward()
    bounds = torch.tensor([WINDOWS.bounds(k) for k in range(4)])[batch.edge]
    expected = (bounds[:, 1] - bounds[:, 0]).sum()
    torch.testing.assert_close(student.error.grad, expected.expand(2))
    assert not states.real.requires_grad


@pytest.mark.parametrize(("own_rollout", "without"), [(False, 0), (True, 3)])
def test_one_call_with_gradient_on_the_whole_batch(own_rollout, without):
    batch = make_batch()
    student = Student(CURVED)
    edge_states(student, cross(CURVED, batch), batch, own_rollout)
    assert [grad for _, grad in student.calls] == [False] * without + [True]
    torch.testing.assert_close(student.calls[-1][0], torch.tensor(WINDOWS.edges)[batch.edge])


def test_samples_keep_their_conditions():
    cond = torch.arange(64) % 3
    batch = make_batch(cond=cond)
    student = Student(CURVED)
    path = rollout(student, batch.eps, WINDOWS.edges, cond).states
    for own in (False, True):
        states = edge_states(student, cross(CURVED, batch), batch, own)
        if own:
            torch.testing.assert_close(states.fake, path[batch.edge + 1, torch.arange(64)])
        nearest = torch.cdist(states.real[batch.edge == 3], CURVED.means).argmin(1)
        assert (nearest == cond[batch.edge == 3]).all()
        alone = replace(batch, eps=batch.eps[5:6], edge=batch.edge[5:6], cond=cond[5:6])
        single = edge_states(student, cross(CURVED, alone), alone, own)
        torch.testing.assert_close(single.fake[0], states.fake[5])


@pytest.mark.parametrize(
    ("edge", "message"),
    [
        (None, "give the batch an edge"),
        (torch.zeros(3, dtype=torch.int64), "one int64 for each of the 64"),
        (torch.zeros(64), "dtype torch.float32"),
        (torch.full((64,), 4), "0 to 3"),
        (torch.full((64,), -1), "0 to 3"),
    ],
)
def test_bad_edges(edge, message):
    batch = replace(make_batch(), edge=edge)
    with pytest.raises(ValueError, match=message):
        edge_states(Student(CURVED), cross(CURVED, batch), batch)


def test_steps_are_the_solvers_own():
    """`edge_states` and a plain Euler step with one time agree to the last bit."""
    batch = replace(make_batch(), edge=torch.full((64,), 2))
    segments = cross(CURVED, batch)
    student = Student(CURVED)
    fake = edge_states(student, segments, batch).fake
    assert torch.equal(fake, euler_step(student, segments[2].x_hi, 0.75, 0.5))
