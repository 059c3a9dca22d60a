"""The folded form computes what stock diffusers computes."""

import copy

import pytest
import torch
from diffusers import StableDiffusion3Pipeline

from flowsteer.emoji.batches import tokenize
from flowsteer.emoji.pipeline import build_pipeline, save_pipeline
from flowsteer.flow import rectified_grid, rollout
from flowsteer.models import (
    SD3Field,
    encode_prompts,
    encode_tokens,
    fold_pipeline,
    fold_zero_tokens,
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


def test_the_zero_tokens_matter(stock):
    """Without their weight the fold would be a different network, so the equality above bites."""
    one_token = copy.deepcopy(stock.transformer)
    fold_zero_tokens(one_token, copies=1)
    full = copy.deepcopy(stock.transformer)
    fold_zero_tokens(full)
    cond = encode_prompts(stock, PROMPTS)
    cond = type(cond)(cond.tokens[:, :32], cond.pooled)
    x, t = torch.randn(2, 16, 16, 16), torch.full((2,), 0.5)
    assert (SD3Field(one_token)(x, t, cond) - SD3Field(full)(x, t, cond)).abs().max() > 1e-4


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


def test_folded_save_writes_the_stock_class(folded, tmp_path):
    folded.save_pretrained(tmp_path)
    assert '"StableDiffusion3Pipeline"' in (tmp_path / "model_index.json").read_text()


def test_pipeline_with_t5_is_refused(stock):
    pipe = copy.copy(stock)
    pipe.text_encoder_3 = stock.text_encoder
    with pytest.raises(ValueError, match="text_encoder_3 is loaded"):
        fold_pipeline(pipe)


def test_fold_needs_a_token(stock):
    with pytest.raises(ValueError, match="copies = 0"):
        fold_zero_tokens(stock.transformer, copies=0)
