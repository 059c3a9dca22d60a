"""A transformer that folds is the stock one to every processor, compiler, recorder and training."""

import copy

import accelerate
import pytest
import torch
from diffusers import SD3Transformer2DModel
from diffusers.models.attention_processor import (
    JointAttnProcessor2_0,
    SD3IPAdapterJointAttnProcessor2_0,
)
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)

from flowsteer.loading import load_pipeline
from flowsteer.models import (
    FoldedCondition,
    SD3Field,
    TextCondition,
    encode_prompts,
    fold_equal_tokens,
)
from flowsteer.models.critic import SD3Backbone
from flowsteer.models.fold import equal_at_end

PROMPTS = ["a koala", "two red foxes"]
FULL, SHORT = 40, 21  # text tokens of `texts("zeros")` and of what is left of them
STATES = torch.randn(2, 16, 16, 16, generator=torch.Generator().manual_seed(4))
TIMES = torch.tensor([0.9, 0.3])
CLOSE, APART = 1e-5, 1e-2


def relative(got, expected):
    return float((got - expected).detach().norm() / expected.detach().norm())


@pytest.fixture(scope="module")
def ours(tiny_folder):
    return load_pipeline(str(tiny_folder), device="cpu")


@pytest.fixture
def pair(tiny_folder, ours):
    """The transformers of stock and of ours, of the same weights and to be changed."""
    stock = SD3Transformer2DModel.from_pretrained(tiny_folder, subfolder="transformer")
    return stock, copy.deepcopy(ours.transformer)


def lengths(transformer):
    """A list that grows with every call: how many text tokens the blocks were given."""
    seen = []
    transformer.context_embedder.register_forward_hook(
        lambda module, args, output: seen.append(output.shape[1])
    )
    return seen


def call(transformer, tokens, **settings):
    """The velocity of two fixed states."""
    pooled = torch.ones(2, transformer.config.pooled_projection_dim)
    return transformer(
        hidden_states=STATES.to(tokens.device),
        timestep=1000 * TIMES.to(tokens.device),
        encoder_hidden_states=tokens,
        pooled_projections=pooled.to(tokens.device),
        return_dict=False,
        **settings,
    )[0]


def texts(name):
    """Tokens (2, 40, channels) that end in all sorts of ways."""
    tokens = torch.randn(2, 40, 32, generator=torch.Generator().manual_seed(3))
    if name == "zeros":
        tokens[:, 20:] = 0
    if name == "uneven":
        tokens[0, 5:], tokens[1, 30:] = 0, 0
    if name == "each its own":
        tokens[:, 10:] = tokens[:, 10:11]
    if name == "one text only":
        tokens[0, 10:] = 0
    if name == "all":
        tokens[:] = 0
    if name == "apart":  # a run of equal ones that does not reach the end
        tokens[:, 10:39] = 0
    if name == "nearly":
        tokens[:, 10:] = 0
        tokens[1, 25, 31] = 1e-3
    return tokens


COPIES = {
    "zeros": 20,
    "uneven": 10,
    "each its own": 30,
    "one text only": 1,
    "all": 40,
    "apart": 1,
    "nearly": 14,
    "none": 1,
}


@pytest.mark.parametrize(("name", "copies"), COPIES.items())
def test_the_equal_tokens_that_are_there_are_counted(pair, name, copies):
    tokens, (stock, folding) = texts(name), pair
    assert equal_at_end(tokens) == copies
    seen = lengths(folding)
    assert relative(call(folding, tokens), call(stock, tokens)) < CLOSE
    assert seen == [41 - copies]


class Watching(JointAttnProcessor2_0):
    """A user's own processor."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, *args, **kwargs):
        self.seen.add(encoder_hidden_states.shape[1])
        out = super().__call__(attn, hidden_states, encoder_hidden_states, *args, **kwargs)
        return out[0] * 1.1, out[1]


def set_everywhere(transformer):
    transformer.set_attn_processor(Watching())


def set_in_one_block(transformer):
    transformer.transformer_blocks[-1].attn.set_processor(Watching())


def fuse(transformer):
    transformer.fuse_qkv_projections()


def fuse_and_back(transformer):
    transformer.fuse_qkv_projections()
    transformer.unfuse_qkv_projections()


def chunk(transformer):
    transformer.enable_forward_chunking(1, 1)


def checkpoint(transformer):
    transformer.enable_gradient_checkpointing()


def compile_in_place(transformer):
    transformer.compile(backend="eager", dynamic=False, fullgraph=True)


def offload(transformer):
    accelerate.cpu_offload(transformer, execution_device=torch.device("cpu"))


def offload_with_hook(transformer):
    accelerate.cpu_offload_with_hook(transformer, torch.device("cpu"))


def cast(transformer):
    transformer.enable_layerwise_casting(torch.bfloat16, torch.float32)


CHANGES = {
    set_everywhere: FULL,
    set_in_one_block: FULL,
    fuse: FULL,
    fuse_and_back: SHORT,
    chunk: SHORT,
    checkpoint: SHORT,
    compile_in_place: FULL,
    offload: SHORT,
    offload_with_hook: SHORT,
    cast: SHORT,
}


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_changed_transformer_is_the_stock_one_with_that_change(pair, change):
    tokens, seen = texts("zeros"), lengths(pair[1])
    for transformer in pair:
        change(transformer)
    assert relative(call(pair[1], tokens), call(pair[0], tokens)) < CLOSE
    assert seen == [CHANGES[change]]


def test_a_processor_of_the_users_sees_the_zero_tokens(ours, pair):
    processor = Watching()
    pair[1].set_attn_processor(processor)
    call(pair[1], texts("zeros"))
    SD3Field(pair[1])(STATES, TIMES, encode_prompts(ours, PROMPTS))
    assert processor.seen == {FULL, 31 + 256}


def test_ip_adapters_attend_as_in_stock(pair):
    width, dim = pair[0].inner_dim, pair[0].config.attention_head_dim
    torch.manual_seed(5)
    processor = SD3IPAdapterJointAttnProcessor2_0(width, width, dim, width)
    image = {"ip_hidden_states": torch.randn(2, 4, width), "temb": torch.randn(2, width)}
    for transformer in pair:
        transformer.set_attn_processor(processor)
    expected, got = (
        call(transformer, texts("zeros"), joint_attention_kwargs=image) for transformer in pair
    )
    assert relative(got, expected) < CLOSE < APART < relative(call(pair[0], texts("zeros")), got)


@pytest.mark.parametrize("dual", [(), (0,)], ids=["SD3", "SD3.5"])
@pytest.mark.parametrize("qk_norm", [None, "rms_norm"])
def test_both_architectures_fold(dual, qk_norm):
    torch.manual_seed(7)
    stock = SD3Transformer2DModel(
        sample_size=16,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=32,
        caption_projection_dim=16,
        pooled_projection_dim=16,
        pos_embed_max_size=16,
        dual_attention_layers=dual,
        qk_norm=qk_norm,
    ).eval()
    folding = copy.deepcopy(stock)
    fold_equal_tokens(folding)
    fold_equal_tokens(folding)  # once is enough, twice does no harm
    assert len(folding._forward_pre_hooks) == 1
    seen = lengths(folding)
    tokens = texts("zeros")
    assert relative(call(folding, tokens), call(stock, tokens)) < CLOSE
    assert seen == [SHORT]
    folding.transformer_blocks[0].attn.set_processor(JointAttnProcessor2_0())
    assert torch.equal(call(folding, tokens), call(stock, tokens))


def test_a_compiled_transformer_is_one_graph_and_counts_nothing(pair):
    """The first call's count would else be taken for that of every call."""
    compiled = torch.compile(pair[1], backend="eager", dynamic=False, fullgraph=True)
    for name in ("zeros", "none", "uneven"):
        assert relative(call(compiled, texts(name)), call(pair[0], texts(name))) < CLOSE


def test_compiled_blocks_fold(ours, pair):
    seen, cond = lengths(pair[1]), encode_prompts(ours, PROMPTS)
    field = SD3Field(pair[1])(STATES, TIMES, cond)
    for block in pair[1].transformer_blocks:
        block.compile(backend="eager", dynamic=False, fullgraph=True)
    assert relative(call(pair[1], texts("zeros")), call(pair[0], texts("zeros"))) < CLOSE
    assert relative(SD3Field(pair[1])(STATES, TIMES, cond), field) < CLOSE
    assert seen == [32, SHORT, 32]


def test_a_traced_transformer_counts_nothing(pair):
    tokens = texts("zeros")

    class Call(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.transformer = pair[1]

        def forward(self, tokens):
            return call(self.transformer, tokens)

    traced = torch.jit.trace(Call(), tokens, check_trace=False)
    with torch.no_grad():
        got = traced(texts("none"))
    assert relative(got, call(pair[0], texts("none"))) < CLOSE


def test_shapes_can_be_asked_for_on_the_meta_device(pair):
    assert call(pair[1].to("meta"), texts("zeros").to("meta")).shape == (2, 16, 16, 16)


def test_gradients_of_the_text_are_those_of_stock(pair):
    """A folded text would have given one token the gradient of all."""
    seen, gradients = lengths(pair[1]), []
    for transformer in pair:
        tokens = texts("zeros").requires_grad_()
        call(transformer, tokens).square().sum().backward()
        gradients.append(tokens.grad)
    assert gradients[0][:, 21:].abs().max() > 0
    assert relative(gradients[1], gradients[0]) < CLOSE
    assert seen == [FULL]


def test_gradients_of_the_weights_are_those_of_stock(pair):
    seen, gradients = lengths(pair[1]), []
    for transformer in pair:
        weight = transformer.transformer_blocks[0].attn.add_k_proj.weight
        loss = call(transformer, texts("zeros")).square().sum()
        gradients.append(torch.autograd.grad(loss, weight)[0])
    assert relative(gradients[1], gradients[0]) < CLOSE
    assert seen == [SHORT]


def test_a_users_training_is_that_of_stock(pair):
    """Dropout treats equal tokens differently, so nothing is folded then."""
    seen = lengths(pair[1])
    for transformer in pair:
        transformer.train()
    tokens = texts("zeros")
    assert torch.equal(call(pair[1], tokens), call(pair[0], tokens))
    assert seen == [FULL]


def test_a_copy_folds_too(ours, pair):
    twin = copy.deepcopy(copy.deepcopy(pair[1]))
    seen = lengths(twin)
    assert relative(call(twin, texts("zeros")), call(pair[0], texts("zeros"))) < CLOSE
    assert seen == [SHORT]


def test_the_training_path_looks_at_no_values(ours, pair, monkeypatch):
    """Its calls are recorded on a GPU, which must not be waited for."""
    cond = encode_prompts(ours, PROMPTS)
    assert type(cond) is FoldedCondition and cond.tokens.shape[1] == 31 + 1
    expected = SD3Field(pair[0])(STATES, TIMES, cond)

    def refuse(tokens):
        raise AssertionError("the tokens were counted")

    monkeypatch.setattr("flowsteer.models.fold.equal_at_end", refuse)
    assert relative(SD3Field(pair[1])(STATES, TIMES, cond), expected) < CLOSE
    with pytest.raises(AssertionError, match="were counted"):
        call(pair[1], texts("zeros"))


@pytest.mark.parametrize("form", [TextCondition, FoldedCondition])
def test_training_needs_no_value_of_a_tensor(pair, form):
    """Tensors without values: whatever asked for one, as a recording cannot, would fail here."""
    critic = SD3Backbone(pair[1])
    with FakeTensorMode(allow_non_fake_inputs=True):
        x, t = torch.randn(2, 16, 16, 16), torch.rand(2)
        cond = form(torch.randn(2, 32, 32), torch.randn(2, pair[1].config.pooled_projection_dim))
        SD3Field(pair[1])(x, t, cond).square().sum().backward()
        features, _ = critic(x, t, cond)
        assert features[0].shape == (2, 64, pair[1].inner_dim)
        with pytest.raises((DataDependentOutputException, DynamicOutputShapeException)):
            equal_at_end(cond.tokens)
