"""The critic made of SD3's first blocks: what it reads, what it trains, that it learns."""

import copy

import pytest
import torch

from flowsteer.distill.adversarial import EdgeStates, critic_loss, student_losses
from flowsteer.emoji.pipeline import build_pipeline
from flowsteer.models import SD3Field, encode_prompts, fold_pipeline
from flowsteer.models.critic import SD3Backbone, build_critic
from flowsteer.models.lora import add_lora

PROMPTS = ["a 3d koala on a blue background", "pizza", "two foxes"]


@pytest.fixture(scope="module")
def stock():
    pipe = build_pipeline("tiny", seed=3)
    torch.manual_seed(0)
    for parameter in pipe.transformer.parameters():
        if not parameter.any():  # zero-initialised parts would hide most of the network
            torch.nn.init.normal_(parameter, std=0.2)
    return pipe


@pytest.fixture(scope="module")
def folded(stock):
    return fold_pipeline(copy.deepcopy(stock))


@pytest.fixture(scope="module")
def cond(folded):
    return encode_prompts(folded, PROMPTS)


@pytest.fixture
def teacher(folded):
    return copy.deepcopy(folded.transformer)


def states(count=3, seed=1):
    generator = torch.Generator().manual_seed(seed)
    real, fake = torch.randn(2, count, 16, 16, 16, generator=generator)
    return EdgeStates(real, fake.requires_grad_(), torch.rand(count, generator=generator))


def opinionated(transformer, **settings):
    """A critic whose head is not at zero, so that gradients reach the backbone."""
    torch.manual_seed(4)
    critic = build_critic(transformer, **settings)
    for head in critic.heads:
        torch.nn.init.normal_(head.project.weight)
    return critic


def trained(critic, cond, steps=2, **settings):
    """The critic after some steps."""
    optimizer = torch.optim.AdamW([p for p in critic.parameters() if p.requires_grad], lr=1e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        critic_loss(critic, states(), cond, **settings)[0].backward()
        optimizer.step()
    return critic


def values(network):
    return {name: p.detach().clone() for name, p in network.named_parameters()}


@pytest.mark.parametrize("form", ["stock", "folded"])
def test_features_are_what_the_transformer_computes_there(form, stock, folded):
    """Image tokens after each block, and the embedding that modulates the blocks, by hooks."""
    pipe = {"stock": stock, "folded": folded}[form]
    cond, x = encode_prompts(pipe, PROMPTS), states()
    seen, embedding = [], []
    hooks = [
        block.register_forward_hook(lambda m, i, out: seen.append(out[1]))
        for block in pipe.transformer.transformer_blocks
    ]
    embed = pipe.transformer.time_text_embed
    hooks.append(embed.register_forward_hook(lambda m, i, out: embedding.append(out)))
    with torch.no_grad():
        SD3Field(pipe.transformer)(x.real, x.t, cond)
    for hook in hooks:
        hook.remove()
    for depth in (1, 2):
        backbone = SD3Backbone(pipe.transformer, depth=depth)
        with torch.no_grad():
            features, conditioning = backbone(x.real, x.t, cond)
        assert len(features) == backbone.depth == depth
        for got, expected in zip(features, seen, strict=False):
            assert torch.equal(got, expected)
            assert got.shape == (3, 64, backbone.width)
        assert torch.equal(conditioning, embedding[0])
        assert conditioning.shape == (3, backbone.cond_width)


def test_folded_and_stock_critics_agree(stock, folded):
    x = states()
    expected = opinionated(stock.transformer)(x.real, x.t, encode_prompts(stock, PROMPTS))
    got = opinionated(folded.transformer)(x.real, x.t, encode_prompts(folded, PROMPTS))
    torch.testing.assert_close(got.logits, expected.logits, rtol=1e-4, atol=1e-4)


def test_half_of_the_blocks_is_the_default(teacher):
    assert SD3Backbone(teacher).depth == 1
    teacher.transformer_blocks.extend(copy.deepcopy(teacher.transformer_blocks[0]) for _ in "abc")
    assert SD3Backbone(teacher).depth == 2  # of five


@pytest.mark.parametrize("training", ["full", "lora", "frozen"])
def test_training_the_critic_leaves_the_teacher_untouched(training, teacher, cond):
    teacher.requires_grad_(False)
    before = values(teacher)
    trained(opinionated(teacher, training=training), cond)
    for name, parameter in teacher.named_parameters():
        assert torch.equal(parameter, before[name]), name
        assert not parameter.requires_grad
    assert not any("lora" in name for name in values(teacher))


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("training", ["full", "lora", "frozen"])
def test_every_trainable_parameter_learns_and_no_other_changes(training, depth, teacher, cond):
    teacher.requires_grad_(depth == 1)  # frozen or not: a copy has its own flags
    critic = opinionated(teacher, training=training, depth=depth, rank=2)
    before = values(critic)
    learning = {name for name, p in critic.named_parameters() if p.requires_grad}
    trained(critic, cond)
    changed = {name for name, p in values(critic).items() if not torch.equal(p, before[name])}
    assert changed == learning
    backbone = {name for name in learning if name.startswith("backbone")}
    assert learning - backbone == {"heads.0.project.weight", "heads.0.project.bias"}
    if training == "frozen":
        assert not backbone
    elif training == "lora":
        assert backbone and all("lora_" in name for name in backbone)
    else:
        assert {name.split(".")[1] for name in backbone} == {
            *("pos_embed", "time_text_embed", "context_embedder", "blocks")
        }


@pytest.mark.parametrize("training", ["full", "lora"])
def test_what_is_trained_is_float32_whatever_the_teacher_is(training, teacher, cond):
    critic = opinionated(teacher.to(torch.bfloat16), training=training)
    assert {p.dtype for p in critic.parameters() if p.requires_grad} == {torch.float32}
    with torch.autocast("cpu", torch.bfloat16):
        losses = student_losses(critic, x := states(), cond)
        own, _ = critic_loss(critic, x, cond)
        features, embedding = critic.backbone(x.real, x.t, cond)
    assert {f.dtype for f in (*features, embedding)} == {torch.float32}
    assert {loss.dtype for loss in (*losses, own)} == {torch.float32}
    (sum(losses) + own).backward()
    assert all(p.grad is not None for p in critic.parameters() if p.requires_grad)


def test_new_adapters_change_nothing(teacher, cond):
    x = states()
    full = build_critic(teacher)(x.real, x.t, cond).features
    lora = build_critic(teacher, training="lora")(x.real, x.t, cond).features
    torch.testing.assert_close(lora, full)


@pytest.mark.parametrize("training", ["full", "lora"])
def test_checkpointing_changes_no_gradient(training, teacher, cond):
    """Blocks run a second time in the backward pass, with constants in the student's losses."""
    gradients = []
    for checkpointing in (False, True):
        critic = opinionated(teacher, training=training, gradient_checkpointing=checkpointing)
        x = states()
        sum(student_losses(critic, x, cond)).backward()
        assert all(p.grad is None for p in critic.parameters())
        critic_loss(critic, x, cond)[0].backward()
        gradients.append([x.fake.grad, *(p.grad for p in critic.parameters() if p.requires_grad)])
    torch.testing.assert_close(gradients[1], gradients[0])


@pytest.mark.parametrize("logits", ["token", "pooled"])
@pytest.mark.parametrize("training", ["full", "lora"])
def test_the_critic_learns(training, logits, teacher, folded):
    """States at their times: contrast 1 is real and 0.6 fake, under noise of the same strength."""
    generator = torch.Generator().manual_seed(6)
    texts = encode_prompts(folded, ["koala"])

    def draw(count):
        x_0, eps = torch.randn(2, count, 16, 16, 16, generator=generator)
        t = torch.rand(count, generator=generator) * 0.5
        a = t[:, None, None, None]
        cond = type(texts)(*(leaf.expand(count, *leaf.shape[1:]) for leaf in texts))
        return EdgeStates((1 - a) * x_0 + a * eps, 0.6 * (1 - a) * x_0 + a * eps, t), cond

    torch.manual_seed(0)
    critic = build_critic(teacher, training=training, logits=logits, rank=4)
    optimizer = torch.optim.AdamW([p for p in critic.parameters() if p.requires_grad], lr=3e-3)
    for _ in range(150 if training == "lora" else 60):
        optimizer.zero_grad()
        loss, health = critic_loss(critic, *draw(8))
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        _, health = critic_loss(critic, *draw(32))
    assert health.accuracy.mean() > 0.9


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"depth": 0}, "depth = 0: the teacher has 2 blocks"),
        ({"depth": 3}, "depth = 3: the teacher has 2 blocks"),
        ({"training": "some"}, "training = 'some' is unknown"),
        ({"training": "lora", "rank": 0}, "rank = 0"),
        ({"heads": "first"}, "heads = 'first'"),
    ],
)
def test_bad_settings(settings, message, teacher):
    with pytest.raises(ValueError, match=message):
        build_critic(teacher, **settings)


def test_a_teacher_with_adapters_is_refused(teacher):
    add_lora(teacher, rank=2)
    with pytest.raises(ValueError, match="carries adapters"):
        build_critic(teacher)
