"""The folded form computes what stock diffusers computes."""

import copy

import pytest
import torch
from diffusers import StableDiffusion3Pipeline

from flowsteer.emoji.batches import tokenize
from flowsteer.emoji.pipeline import build_pipeline, save_pipeline
from flowsteer.flow import rectified_grid, rollout
from flowsteer.models import (
    FoldedCondition,
    SD3Field,
    TextCondition,
    encode_prompts,
    encode_tokens,
    fold_pipeline,
)

PROMPTS = ["a 3d koala on a blue background", "pizza"]


@pytest.fixture(scope="module")
def stock():
    pipe = build_pipeline("tiny", seed=3)
    torch.manual_seed(0)
    for parameter in pipe.transformer.parameters():
        if not parameter.any():  # zero-initialised parts would hide most of the network
            torch.nn.init.normal_(parameter, std=0.05)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def folded(stock):
    pipe = fold_pipeline(
        StableDiffusion3Pipeline(
            **(stock.components | {"transformer": copy.deepcopy(stock.transformer)})
        )
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def latents(pipe, **settings):
    generator = torch.Generator().manual_seed(1)
    return pipe(PROMPTS, generator=generator, output_type="latent", **settings).images


@pytest.mark.parametrize("guidance_scale", [1.0, 7.0])
def test_folded_pipeline_equals_stock(stock, folded, guidance_scale):
    settings = {"num_inference_steps": 4, "guidance_scale": guidance_scale}
    expected, got = latents(stock, **settings), latents(folded, **settings)
    assert (got - expected).abs().max() <= 5e-6 * expected.abs().max()


def test_the_zero_tokens_matter(stock, folded):
    """Without their weight the fold would be a different network, so the equality above bites."""
    cond = encode_prompts(folded, PROMPTS)
    x, t = torch.randn(2, 16, 16, 16), torch.full((2,), 0.5)
    one_token = TextCondition(*cond)
    got, expected = SD3Field(stock.transformer)(x, t, one_token), SD3Field(folded.transformer)
    assert (got - expected(x, t, cond)).abs().max() > 1e-4


@pytest.mark.parametrize("reader", ["stock", "folded"])
@pytest.mark.parametrize("form", [TextCondition, FoldedCondition])
def test_every_transformer_reads_both_forms(stock, folded, reader, form):
    """A folded condition is unfolded for blocks that cannot fold: the field is the same."""
    transformer = {"stock": stock, "folded": folded}[reader].transformer
    cond = encode_prompts({TextCondition: stock, FoldedCondition: folded}[form], PROMPTS)
    assert type(cond) is form
    x, t = torch.randn(2, 16, 16, 16), torch.full((2,), 0.5)
    with torch.no_grad():
        expected = SD3Field(stock.transformer)(x, t, encode_prompts(stock, PROMPTS))
        got = SD3Field(transformer)(x, t, cond)
    assert (got - expected).norm() <= 1e-5 * expected.norm()


def test_folded_prompts_are_shorter(stock, folded):
    assert encode_prompts(stock, PROMPTS).tokens.shape[1] == 31 + 256
    assert encode_prompts(folded, PROMPTS).tokens.shape[1] == 31 + 1


def test_token_route_equals_the_pipelines_own(folded):
    ids = tokenize(folded.tokenizer, PROMPTS)
    got = encode_tokens([folded.text_encoder, folded.text_encoder_2], ids)
    expected = encode_prompts(folded, PROMPTS)
    torch.testing.assert_close(got.tokens, expected.tokens)
    torch.testing.assert_close(got.pooled, expected.pooled)


def test_rollout_of_the_field_equals_the_pipeline(folded):
    """The pipeline's sampler and ours are one: stock sigmas passed unshifted."""
    noise = torch.randn(2, 16, 16, 16, generator=torch.Generator().manual_seed(5))
    expected = folded(
        PROMPTS,
        latents=noise,
        sigmas=[1.0, 0.75, 0.5, 0.25],
        num_inference_steps=4,
        guidance_scale=1.0,
        output_type="latent",
    ).images
    field, cond = SD3Field(folded.transformer), encode_prompts(folded, PROMPTS)
    with torch.no_grad():
        got = rollout(field, noise, rectified_grid(4, 3.0), cond).end
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_saved_folder_loads_in_stock_diffusers(folded, tmp_path):
    """bf16 on disk, float32 when loaded, the stock class, and no import of ours in the index."""
    save_pipeline(folded, tmp_path)
    loaded = StableDiffusion3Pipeline.from_pretrained(
        tmp_path, text_encoder_3=None, tokenizer_3=None
    )
    assert type(loaded) is StableDiffusion3Pipeline
    assert "flowsteer" not in (tmp_path / "model_index.json").read_text()
    networks = (loaded.transformer, loaded.vae, loaded.text_encoder, loaded.text_encoder_2)
    assert {network.dtype for network in networks} == {torch.float32}
    picture = loaded("a koala", num_inference_steps=1, output_type="pt").images
    assert picture.shape == (1, 3, 128, 128) and picture.isfinite().all()
