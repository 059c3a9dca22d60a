"""The adversarial game: its losses, who learns from what, and that it brings the two together."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from flowsteer.distill import Batch, Solve, authentic_starts
from flowsteer.distill.adversarial import EdgeStates, critic_loss, edge_states, student_losses
from flowsteer.distill.critic import CriticOutput, TrajectoryCritic
from flowsteer.distill.games import (
    ADVERSARIAL_LOSSES,
    R1_STEP,
    approximate_r1,
    find_adversarial_loss,
    signal_weights,
)
from flowsteer.flow import GaussianMixture, TimeWindows

WINDOWS = TimeWindows((1.0, 0.9, 0.75, 0.5, 0.0))
SOLVE = Solve(substeps=7, shift=3.0)
KINDS = list(ADVERSARIAL_LOSSES)
CURVED = GaussianMixture(
    torch.tensor([[2.0, 0.0], [-2.0, 1.0], [0.0, -2.0]]), torch.full((3,), 0.2), torch.ones(3)
)
POINT = GaussianMixture(torch.tensor([[1.0, -1.0]]), torch.zeros(1), torch.ones(1))


class LinearCritic(nn.Module):
    """D(x) = <w, x>: every number about it is known."""

    def __init__(self, w=(1.0, 0.0)):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(w))

    def forward(self, x, t, cond):
        return CriticOutput((x @ self.w)[:, None], x[:, None, None])


class TwoBlocks(nn.Module):
    width, cond_width, depth = 16, 4, 2

    def __init__(self):
        super().__init__()
        self.enter, self.know = nn.Linear(3, 32), nn.Linear(2, 4)
        self.blocks = nn.ModuleList(nn.Linear(16, 16) for _ in range(2))

    def forward(self, x, t, cond):
        h = self.enter(torch.cat([x, t[:, None]], 1)).unflatten(1, (2, 16))
        features = [h := h + block(h).tanh() for block in self.blocks]
        prompt = torch.zeros_like(t) if cond is None else cond.to(t)
        return features, self.know(torch.stack([t, prompt], 1))


def make_critic(**settings):
    torch.manual_seed(0)
    critic = TrajectoryCritic(TwoBlocks(), **settings)
    for head in critic.heads:
        nn.init.normal_(head.project.weight)
    return critic


class Student(nn.Module):
    """The exact field of a mixture, plus a constant error."""

    def __init__(self, mixture, error=(0.0, 0.0)):
        super().__init__()
        self.field, self.error = mixture.velocity, nn.Parameter(torch.tensor(error))

    def forward(self, x, t, cond):
        return self.field(x, t, cond) + self.error


def make_batch(count=64, seed=0, cond=None):
    generator = torch.Generator().manual_seed(seed)
    eps = torch.randn(count, 2, generator=generator)
    return Batch(eps, torch.rand(4, count, generator=generator), cond, edge=torch.arange(count) % 4)


def cross(mixture, batch):
    return list(authentic_starts(mixture.velocity, batch, WINDOWS, SOLVE))


def some_states(count=8):
    generator = torch.Generator().manual_seed(3)
    real, fake = torch.randn(2, count, 2, generator=generator)
    return EdgeStates(real, fake.requires_grad_(), torch.rand(count, generator=generator))


def softplus(x):
    return math.log1p(math.exp(x))


@pytest.mark.parametrize(
    ("kind", "critic", "student"),
    [
        # real 2 and 0.5, fake -2 and 0.5
        ("hinge", (0 + 0.5) / 2 + (0 + 1.5) / 2, 0.75),
        (
            "non_saturating",
            (softplus(-2) + softplus(-0.5)) / 2 + (softplus(-2) + softplus(0.5)) / 2,
            (softplus(2) + softplus(-0.5)) / 2,
        ),
        ("least_squares", (1 + 0.25) / 4 + (1 + 2.25) / 4, (9 + 0.25) / 4),
        ("wasserstein", -0.75 - 1.25, 0.75),
        # differences of 4 and 0
        (
            "relativistic",
            (softplus(-4) + softplus(0)) / 2,
            (softplus(4) + softplus(0)) / 2,
        ),
    ],
)
def test_losses_by_hand(kind, critic, student):
    real, fake = torch.tensor([[2.0], [0.5]]), torch.tensor([[-2.0], [0.5]])
    losses = find_adversarial_loss(kind)
    assert losses.critic(real, fake).shape == losses.student(real, fake).shape == (2, 1)
    assert losses.critic(real, fake).mean().item() == pytest.approx(critic)
    assert losses.student(real, fake).mean().item() == pytest.approx(student)


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_down_the_student_loss_raises_the_logits_of_its_states(kind):
    states, critic = some_states(), LinearCritic((0.15, -0.2))
    loss, _ = student_losses(critic, states, None, kind)
    (gradient,) = torch.autograd.grad(loss, states.fake)
    before, after = (x @ critic.w for x in (states.fake, states.fake - 0.1 * gradient))
    assert before.max() < 1  # from above, least squares would pull them down to 1
    assert (after > before).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_down_the_critic_loss_parts_real_from_fake(kind):
    states, critic = some_states(), LinearCritic((0.1, 0.0))
    noise = torch.zeros(8, 2) if kind == "wasserstein" else None
    loss, health = critic_loss(critic, states, None, kind, noise)
    loss.backward()
    with torch.no_grad():
        critic.w -= 0.01 * critic.w.grad
    _, later = critic_loss(critic, states, None, kind, noise)
    assert later.real - later.fake > health.real - health.fake


def test_unknown_game():
    with pytest.raises(ValueError, match="'magic' is unknown; use one of hinge"):
        find_adversarial_loss("magic")


@pytest.mark.parametrize("step", [0.001, 0.1, 1.0])
def test_approximate_r1_of_a_linear_critic_is_its_squared_slope(step):
    """D = <w, x> has slope w everywhere: |w|^2 = 25, whatever the step."""
    generator = torch.Generator().manual_seed(0)
    x, noise = torch.randn(2, 20_000, 2, generator=generator, dtype=torch.float64)
    w = torch.tensor([[3.0], [4.0]], dtype=torch.float64)
    slope = approximate_r1(x @ w, (x + step * noise) @ w, step)
    assert slope.item() == pytest.approx(25, rel=0.03)


def test_noise_adds_the_weighted_slope_to_the_critic_loss():
    states, critic = some_states(), LinearCritic((3.0, 4.0))
    noise = torch.randn(8, 2, generator=torch.Generator().manual_seed(5))
    plain, _ = critic_loss(critic, states, None)
    full, _ = critic_loss(critic, states, None, noise=noise, r1_weight=2.0)
    expected = 2.0 * (noise @ critic.w).square().mean()  # the step cancels
    torch.testing.assert_close(full - plain, expected, rtol=1e-3, atol=1e-3)
    assert R1_STEP > 0.01  # well above what bfloat16 rounds away


class SquareCritic(LinearCritic):
    """D(x) = <w, x>^2, steeper on larger states."""

    def forward(self, x, t, cond):
        return CriticOutput((x @ self.w).square()[:, None], x[:, None, None])


@pytest.mark.parametrize("kind", KINDS)
def test_r1_is_the_slope_on_real_states_and_r2_on_fake_ones(kind):
    states, critic = some_states(), SquareCritic((0.6, -0.8))
    noise = torch.randn(8, 2, generator=torch.Generator().manual_seed(5))

    def loss(r1_weight, r2_weight):
        weights = {"r1_weight": r1_weight, "r2_weight": r2_weight}
        return critic_loss(critic, states, None, kind, noise, **weights)[0]

    def slope(x):
        along = 2 * (x @ critic.w) * (noise @ critic.w) + R1_STEP * (noise @ critic.w).square()
        return along.square().mean()

    close = {"rtol": 1e-3, "atol": 1e-3}
    torch.testing.assert_close(loss(2, 0) - loss(0, 0), 2 * slope(states.real), **close)
    torch.testing.assert_close(loss(0, 3) - loss(0, 0), 3 * slope(states.fake), **close)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_count_samples_in_the_critic_s_game_and_in_the_student_s(kind):
    states, critic = some_states(), LinearCritic((0.3, -0.4))
    weights = torch.arange(8.0)
    noise = torch.zeros(8, 2)
    game = find_adversarial_loss(kind)
    real, fake = ((x @ critic.w)[:, None] for x in (states.real, states.fake))
    got, _ = critic_loss(critic, states, None, kind, noise, weights=weights)
    torch.testing.assert_close(got, (weights[:, None] * game.critic(real, fake)).mean())
    got, _ = student_losses(critic, states, None, kind, weights)
    torch.testing.assert_close(got, (weights[:, None] * game.student(real, fake)).mean())


def test_signal_weights():
    """Of x_t = (1 - t) x_0 + t eps."""
    torch.testing.assert_close(
        signal_weights(torch.tensor([0.0, 0.5, 0.9])), torch.tensor([1.0, 0.25, 0.01])
    )


class PromptCritic(LinearCritic):
    """D(x, c) = <w, x> + c."""

    def forward(self, x, t, cond):
        return CriticOutput((x @ self.w + cond[0])[:, None], x[:, None, None])


@pytest.mark.parametrize("kind", KINDS)
def test_real_states_under_the_next_prompt_are_fakes_too(kind):
    states, critic = some_states(), PromptCritic((0.3, -0.4))
    cond = (torch.arange(8.0),)
    weights = torch.linspace(0.5, 2, 8)
    game = find_adversarial_loss(kind)
    plain, wrong = (
        critic_loss(
            critic, states, cond, kind, torch.zeros(8, 2), weights=weights, wrong_weight=share
        )[0]
        for share in (0.0, 2.0)
    )
    real = (states.real @ critic.w + cond[0])[:, None]
    misled = (states.real @ critic.w + torch.tensor([1.0, 2, 3, 4, 5, 6, 7, 0]))[:, None]
    expected = 2 * (weights[:, None] * game.critic(real, misled)).mean()
    torch.testing.assert_close(wrong - plain, expected)


@pytest.mark.parametrize("heads", ["last", "each"])
@pytest.mark.parametrize("logits", ["token", "pooled"])
@pytest.mark.parametrize("kind", KINDS)
def test_student_losses_reach_the_student_and_not_the_critic(kind, heads, logits):
    critic, states = make_critic(heads=heads, logits=logits), some_states()
    critic.backbone.enter.requires_grad_(False)  # as in a partly frozen critic
    flags = [p.requires_grad for p in critic.parameters()]
    for loss in student_losses(critic, states, None, kind):
        states.fake.grad = None
        loss.backward(retain_graph=True)
        assert states.fake.grad.abs().max(1).values.min() > 0  # every sample
    assert all(p.grad is None for p in critic.parameters())
    assert [p.requires_grad for p in critic.parameters()] == flags


def test_student_gradient_is_the_one_through_the_critic_itself():
    critic, states = make_critic(), some_states()
    adversarial, matching = student_losses(critic, states, None)
    got = torch.autograd.grad(adversarial + 3 * matching, states.fake)
    out = critic(states.fake, states.t, None)
    target = critic(states.real, states.t, None).features.detach()
    loss = -out.logits.mean() + 3 * (out.features - target).square().mean()
    expected = torch.autograd.grad(loss, states.fake)
    torch.testing.assert_close(got, expected)


def test_critic_is_itself_again_after_an_error():
    critic, states = make_critic(), some_states()
    parameters = list(critic.parameters())
    with pytest.raises(IndexError):
        student_losses(critic, replace(states, t=torch.zeros(())), None)
    assert [id(p) for p in critic.parameters()] == [id(p) for p in parameters]
    assert all(p.requires_grad for p in critic.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_critic_loss_reaches_the_critic_and_not_the_student(kind):
    batch = make_batch()
    student, critic = Student(CURVED, (0.5, 0.0)), make_critic()
    states = edge_states(student, cross(CURVED, batch), batch)
    noise = torch.randn(64, 2) if kind == "wasserstein" else None
    loss, health = critic_loss(critic, states, None, kind, noise)
    loss.backward()
    assert student.error.grad is None
    assert all(p.grad is not None and p.grad.any() for p in critic.parameters())
    assert not any(value.requires_grad for value in health)
    assert [value.shape for value in health] == [(), (), (64,), (64,)]


def test_features_match_if_and_only_if_the_states_do():
    critic, states = make_critic(heads="each"), some_states()
    same = EdgeStates(states.real, states.real.clone().requires_grad_(), states.t)
    assert student_losses(critic, same, None)[1] == 0
    for i in range(8):
        for axis in range(2):
            moved = states.real.clone()
            moved[i, axis] += 0.01
            assert student_losses(critic, replace(states, fake=moved), None)[1] > 0


def test_one_pass_over_both_equals_a_pass_over_each():
    """Nothing in the critic mixes samples, and each keeps its own time and prompt."""
    critic, states = make_critic(), some_states()
    cond = torch.arange(8)
    loss, health = critic_loss(critic, states, cond)
    real = critic(states.real, states.t, cond).logits
    fake = critic(states.fake, states.t, cond).logits
    expected = (1 - real).relu().mean() + (1 + fake).relu().mean()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(health.real, real.mean())
    torch.testing.assert_close(health.fake, fake.mean())


def test_conditions_may_be_nested_tuples():
    class Reader(LinearCritic):
        def forward(self, x, t, cond):
            assert [len(leaf) for leaf in (cond[0], *cond[1])] == [len(x)] * 3
            return super().forward(x + cond[1][0], t, None)

    states = some_states()
    cond = (torch.arange(8), (torch.ones(8, 1), torch.zeros(8)))
    _, health = critic_loss(Reader(), states, cond)
    torch.testing.assert_close(health.real, states.real[:, 0].mean() + 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "magic"}, "'magic' is unknown"),
        ({"kind": "wasserstein"}, "wasserstein needs noise"),
        ({"r2_weight": 1.0}, "r2_weight = 1.0 needs noise"),
        ({"wrong_weight": 1.0}, "two samples or more to exchange"),
        ({"cond": torch.zeros(1), "wrong_weight": 1.0}, "two samples or more to exchange"),
        ({"noise": torch.zeros(3, 2)}, "one noise a state"),
        ({"cond": torch.zeros(3)}, "conditions for 3 samples"),
        ({"cond": {"prompt": 1}}, "a condition is a dict"),
    ],
)
def test_bad_arguments_of_the_critic_loss(change, message):
    arguments = {"critic": make_critic(), "states": some_states(), "cond": None} | change
    with pytest.raises(ValueError, match=message):
        critic_loss(**arguments)


@pytest.mark.parametrize(
    ("kind", "accuracy"),
    [
        ("hinge", [1.0, 0.5]),  # against 0
        ("wasserstein", [1.0, 0.0]),  # against 2.25, midway between the means
        ("relativistic", [1.0, 0.0]),  # the same
    ],
)
def test_health_by_hand(kind, accuracy):
    real, fake = torch.tensor([[5.0, 0], [2.0, 0]]), torch.tensor([[-1.0, 0], [3.0, 0]])
    states = EdgeStates(real, fake, torch.ones(2))
    _, health = critic_loss(LinearCritic(), states, None, kind, noise=torch.zeros(2, 2))
    assert [v.tolist() for v in health] == [3.5, 1.0, accuracy, [1.0, 0.0]]


@pytest.mark.parametrize("kind", KINDS)
def test_a_critic_without_opinion_guesses(kind):
    _, health = critic_loss(LinearCritic((0.0, 0.0)), some_states(), None, kind, torch.zeros(8, 2))
    assert health.accuracy.eq(0.5).all() and health.ranked.eq(0.5).all()


def test_everything_is_float32_under_autocast():
    class HalfStudent(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def forward(self, x, t, cond):
            return self.layer(x)

    batch, critic, student = make_batch(), make_critic(), HalfStudent()
    with torch.autocast("cpu", torch.bfloat16):
        states = edge_states(student, cross(CURVED, batch), batch, own_rollout=True)
        losses = student_losses(critic, states, None)
        own, health = critic_loss(critic, states, None)
    assert {x.dtype for x in (states.fake, *losses, own, *health)} == {torch.float32}
    # calls without gradient come first: what they leave in autocast's cache must not cut the last
    sum(losses).backward()
    own.backward()
    for network in (student, critic):
        assert all(p.grad is not None and p.grad.any() for p in network.parameters())


@pytest.mark.parametrize(
    ("kind", "own_rollout"), [*((kind, False) for kind in KINDS), ("hinge", True)]
)
def test_the_game_alone_brings_the_student_to_the_teacher(kind, own_rollout):
    """A student that errs by a constant on straight paths: the critic alone must take it away."""
    student = Student(POINT, (1.0, -0.6))
    torch.manual_seed(0)
    critic = TrajectoryCritic(TwoBlocks())
    game = torch.optim.Adam(critic.parameters(), lr=3e-3, betas=(0.5, 0.9))
    descent = torch.optim.Adam(student.parameters(), lr=2e-2, betas=(0.5, 0.9))
    for step in range(100):
        batch = make_batch(32, seed=step)
        states = edge_states(student, cross(POINT, batch), batch, own_rollout)
        noise = torch.randn(32, 2, generator=torch.Generator().manual_seed(step))
        descent.zero_grad()
        student_losses(critic, states, None, kind)[0].backward()
        descent.step()
        game.zero_grad()
        critic_loss(critic, states, None, kind, noise, r1_weight=0.1)[0].backward()
        game.step()
    assert student.error.detach().norm() < 0.3
