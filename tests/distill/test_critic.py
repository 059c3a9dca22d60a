"""The critic's heads on a small backbone, and the edges at which it looks."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from flowsteer.distill.critic import (
    Head,
    MomentsHead,
    TrajectoryCritic,
    edge_probabilities,
    locate_edges,
)


class PointBackbone(nn.Module):
    """Points in the plane, seen as `n` tokens; what it knows of time and prompt stays apart."""

    width, cond_width, depth = 16, 3, 2

    def __init__(self, n=4):
        super().__init__()
        self.n = n
        self.enter = nn.Linear(2, n * self.width)
        self.blocks = nn.ModuleList(nn.Linear(self.width, self.width) for _ in range(self.depth))

    def forward(self, x, t, cond):
        h = self.enter(x).unflatten(1, (self.n, self.width))
        features = [h := h + block(h).tanh() for block in self.blocks]
        prompt = torch.zeros_like(t) if cond is None else cond.to(t)
        return features, torch.stack([t, prompt, torch.ones_like(t)], dim=1)


def make_critic(n=4, **settings):
    torch.manual_seed(0)
    return TrajectoryCritic(PointBackbone(n), **settings)


def opinionated(**settings):
    """A critic whose heads are not at zero any more."""
    critic = make_critic(**settings)
    for head in critic.heads:
        project = (head.head if isinstance(head, MomentsHead) else head).project
        nn.init.normal_(project.weight)
        nn.init.normal_(project.bias)
    return critic


def points(count=8, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 2, generator=generator), torch.rand(count, generator=generator)


def learn(critic, draw, steps, rate=3e-3):
    """Accuracy on fresh draws, after `steps` of hinge on real and fake states that share t, c."""
    optimizer = torch.optim.AdamW(critic.parameters(), lr=rate)
    generator = torch.Generator().manual_seed(2)
    for _ in range(steps):
        real, fake, t, cond = draw(generator)
        loss = (1 - critic(real, t, cond).logits).relu().mean()
        loss = loss + (1 + critic(fake, t, cond).logits).relu().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    real, fake, t, cond = draw(generator)
    with torch.no_grad():
        right = (critic(real, t, cond).logits > 0).float().mean()
        return (right + (critic(fake, t, cond).logits < 0).float().mean()) / 2


@pytest.mark.parametrize("n", [1, 4])
@pytest.mark.parametrize(
    ("heads", "logits", "count"),
    [
        ("last", "token", lambda n: n),
        ("each", "token", lambda n: 2 * n),
        ("last", "pooled", lambda n: 1),
        ("each", "pooled", lambda n: 2),
        ("last", "moments", lambda n: 1),
        ("each", "moments", lambda n: 2),
    ],
)
def test_shapes(n, heads, logits, count):
    critic = make_critic(n, heads=heads, logits=logits)
    out = critic(*points(), None)
    assert out.logits.shape == (8, count(n))
    assert out.features.shape == (8, len(critic.heads), n, 16)
    assert len(critic.heads) == (1 if heads == "last" else 2)


def test_last_head_reads_the_last_block_and_each_head_its_own():
    critic = make_critic(heads="each")
    x, t = points()
    raw, _ = critic.backbone(x, t, None)
    features = critic(x, t, None).features
    for i, block in enumerate(raw):
        expected = (block - block.mean(-1, keepdim=True)) / block.std(-1, False, keepdim=True)
        torch.testing.assert_close(features[:, i], expected, rtol=1e-3, atol=1e-4)
    last = make_critic(heads="last")(x, t, None).features  # the same weights: one seed
    torch.testing.assert_close(last[:, 0], features[:, 1])


def test_a_new_critic_has_no_opinion():
    for settings in ({}, {"heads": "each"}, {"logits": "moments"}):
        assert not make_critic(**settings)(*points(), None).logits.any()


def test_logits_do_not_depend_on_the_scale_of_the_backbone():
    """Activations differ by orders of magnitude between teachers; learning must not."""

    class Louder(PointBackbone):
        def forward(self, x, t, cond):
            features, c = super().forward(x, t, cond)
            return [300 * f + 7 for f in features], 100 * c + 3

    critic = opinionated()
    louder = Louder()
    louder.load_state_dict(critic.backbone.state_dict())
    expected = critic(*points(), None)
    critic.backbone = louder
    got = critic(*points(), None)
    torch.testing.assert_close(got.logits, expected.logits, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(got.features, expected.features, rtol=1e-3, atol=1e-3)


def test_head_is_an_inner_product_with_projected_condition():
    """<w, h> + b with [w, b] = W c / 2 + [w_0, b_0]; (3, 1, 1, -1) has mean 1 and std sqrt 2."""
    head = Head(width=2, cond_width=4)
    with torch.no_grad():
        head.project.weight.copy_(torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 1], [0, 1, 0, 0]]))
        head.project.bias.copy_(torch.tensor([0.5, 0.0, 0.25]))
    c = torch.tensor([[3.0, 1, 1, -1]])
    half = 2**0.5 / 2  # c normalised is (sqrt 2, 0, 0, -sqrt 2); then divided by sqrt 4
    h = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [2.0, -1.0]]])
    expected = [half + 0.5 + 0.25, -half + 0.25, 2 * (half + 0.5) + half + 0.25]
    torch.testing.assert_close(head(h, c), torch.tensor([expected]), rtol=1e-4, atol=1e-4)


def test_pooled_logits_are_the_means_of_the_tokens():
    token, pooled = opinionated(heads="each"), opinionated(heads="each", logits="pooled")
    means = token(*points(), None).logits.view(8, 2, 4).mean(2)
    torch.testing.assert_close(pooled(*points(), None).logits, means)


def test_moments_are_a_mean_and_a_deviation():
    """Tokens (1, -1) and (3, -1): means (2, -1), deviations (1, 0), normalised; then silu."""
    head = MomentsHead(width=2, cond_width=3, hidden=4)
    with torch.no_grad():
        head.hidden.weight.copy_(torch.eye(4))
        head.hidden.bias.zero_()
        head.head.project.bias.copy_(torch.tensor([1.0, 10, 100, 1000, 0.5]))
    moments = torch.tensor([2.0, -1, 1, 0])
    h = nn.functional.silu((moments - moments.mean()) / moments.std(correction=0))
    expected = (h * torch.tensor([1.0, 10, 100, 1000])).sum() + 0.5
    got = head(torch.tensor([[[1.0, -1], [3, -1]]]), torch.randn(1, 3))
    torch.testing.assert_close(got, expected.reshape(1, 1), rtol=1e-2, atol=1e-3)


def test_moments_have_a_slope_where_tokens_are_equal():
    critic = opinionated(n=1, logits="moments")
    x, t = points()
    critic(x.requires_grad_(), t, None).logits.sum().backward()
    assert x.grad.isfinite().all() and x.grad.any()


def test_moments_tell_what_no_mean_over_tokens_can():
    """Tokens of a student that are all alike, against tokens of equal mean that differ."""

    def draw(generator):
        middle, apart = torch.randn(2, 64, 1, 16, generator=generator)
        signs = torch.tensor([1.0, -1, 1, -1])[:, None]
        t = torch.full((64,), 0.5)
        return middle + apart * signs, middle.expand(64, 4, 16), t, None

    class Tokens(PointBackbone):
        def forward(self, x, t, cond):
            return [x, x], torch.stack([t, t, torch.ones_like(t)], dim=1)

    rights = {}
    for logits in ("pooled", "moments"):
        torch.manual_seed(0)
        critic = TrajectoryCritic(Tokens(), logits=logits)
        rights[logits] = learn(critic, draw, steps=100, rate=1e-2)
    assert rights["moments"] > 0.95 and rights["pooled"] < 0.7


@pytest.mark.parametrize("heads", ["last", "each"])
@pytest.mark.parametrize("logits", ["token", "pooled", "moments"])
@pytest.mark.parametrize("n", [1, 4])
def test_the_critic_learns_a_ring_from_its_centre(heads, logits, n):
    """Both have mean zero in every direction: no linear judgement of the points can do it."""

    def draw(generator):
        angle = 6.2831853 * torch.rand(64, generator=generator)
        noise = 0.2 * torch.randn(2, 64, 2, generator=generator)
        ring = 2 * torch.stack([angle.cos(), angle.sin()], 1) + noise[0]
        return ring, noise[1], torch.full((64,), 0.5), None

    critic = make_critic(n, heads=heads, logits=logits)
    assert learn(critic, draw, steps=150, rate=1e-2) > 0.9


@pytest.mark.parametrize("told_by", ["prompt", "time"])
@pytest.mark.parametrize("logits", ["token", "pooled", "moments"])
def test_the_heads_know_time_and_prompt(told_by, logits):
    """What is real under one prompt (or time) is fake under the other; the states alone say 0.5."""

    def draw(generator):
        which = torch.randint(2, (64,), generator=generator)
        noise = 0.3 * torch.randn(2, 64, 2, generator=generator)
        side = (2.0 * which - 1)[:, None]
        t = 0.25 + 0.5 * which if told_by == "time" else torch.full((64,), 0.5)
        return side + noise[0], -side + noise[1], t, which if told_by == "prompt" else None

    assert learn(make_critic(logits=logits), draw, steps=100, rate=1e-2) > 0.9


def test_logits_and_features_are_float32_under_autocast():
    critic = opinionated()
    expected = critic(*points(), None)
    with torch.autocast("cpu", torch.bfloat16):
        out = critic(*points(), None)
    assert out.logits.dtype == out.features.dtype == torch.float32
    torch.testing.assert_close(out.features, expected.features, rtol=0.1, atol=0.1)
    # the head itself ran in float32: from the same features, the same logits
    c = critic.backbone(*points(), None)[1]
    torch.testing.assert_close(critic.heads[0](out.features[:, 0], c), out.logits)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"heads": "first"}, "heads = 'first'"), ({"logits": "patch"}, "logits = 'patch'")],
)
def test_unknown_kinds(settings, message):
    with pytest.raises(ValueError, match=message):
        make_critic(**settings)


@pytest.mark.parametrize(
    ("windows", "expected"),
    [
        (1, [1.0]),
        (2, [0.4, 0.6]),
        (3, [0.4, 0.3, 0.3]),
        (4, [0.4, 0.2, 0.2, 0.2]),
        (7, [0.4, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]),
    ],
)
def test_edge_probabilities_and_the_frequencies_of_the_draw(windows, expected):
    """Over an even grid of numbers every edge is drawn exactly as often as it should be."""
    torch.testing.assert_close(
        edge_probabilities(windows), torch.tensor(expected, dtype=torch.float64)
    )
    grid = (torch.arange(1000) + 0.5) / 1000
    counts = torch.bincount(locate_edges(grid, windows), minlength=windows)
    assert counts.tolist() == [round(1000 * p) for p in expected]


@given(
    uniform=st.lists(st.floats(0, 1, exclude_max=True, width=32), min_size=1, max_size=20),
    windows=st.integers(1, 12),
)
def test_the_draw_inverts_the_distribution_function(uniform, windows):
    u = torch.tensor(uniform)
    edge = locate_edges(u, windows)
    assert edge.dtype == torch.int64 and edge.shape == u.shape
    above = edge_probabilities(windows).cumsum(0).float()
    below = torch.cat([torch.zeros(1), above[:-1]])
    above[-1] = 1.0
    assert ((below[edge] <= u) & (u < above[edge])).all()


@pytest.mark.parametrize("outside", [-0.1, 1.0, float("nan")])
def test_the_draw_refuses_what_torch_rand_does_not_give(outside):
    with pytest.raises(ValueError, match=r"\[0, 1\)"):
        locate_edges(torch.tensor([0.5, outside]), 4)


def test_no_windows():
    with pytest.raises(ValueError, match="num_windows = 0"):
        edge_probabilities(0)
