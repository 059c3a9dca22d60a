"""The parts of a pipeline that folds give stock pictures in every pipeline of SD3's family."""

import copy

import pytest
import torch
from diffusers import (
    SD3ControlNetModel,
    StableDiffusion3ControlNetInpaintingPipeline,
    StableDiffusion3ControlNetPipeline,
    StableDiffusion3Img2ImgPipeline,
    StableDiffusion3InpaintPipeline,
    StableDiffusion3PAGImg2ImgPipeline,
    StableDiffusion3PAGPipeline,
    StableDiffusion3Pipeline,
)
from PIL import Image

from flowsteer.loading import load_pipeline
from flowsteer.models.fold import can_fold
from flowsteer.models.lora import add_lora

PROMPTS = ["a koala", "two red foxes"]
PICTURE, MASK = Image.new("RGB", (128, 128), "red"), Image.new("L", (128, 128), 255)
IMG2IMG, CONTROL = {"image": PICTURE, "strength": 0.9}, {"control_image": PICTURE}
SHORT = 31 + 1
CLOSE, APART = 1e-5, 1e-2


def relative(got, expected):
    return float((got - expected).norm() / expected.norm())


def latents(pipe, **settings):
    """Final latents of two guided steps; noise and all else is fixed."""
    pipe.set_progress_bar_config(disable=True)
    torch.manual_seed(3)  # ControlNet pipelines draw the picture's latents without the generator
    defaults = {
        "prompt": PROMPTS[0],
        "num_inference_steps": 2,
        "guidance_scale": 5.0,
        "output_type": "latent",
        "generator": torch.Generator().manual_seed(1),
    }
    return pipe(**(defaults | settings)).images


@pytest.fixture(scope="module")
def stock(tiny_folder):
    return StableDiffusion3Pipeline.from_pretrained(
        tiny_folder, text_encoder_3=None, tokenizer_3=None
    )


@pytest.fixture(scope="module")
def ours(tiny_folder):
    return load_pipeline(str(tiny_folder), device="cpu", scheduler="stock")


def controlnet(channels):
    def make(pipe):
        net = SD3ControlNetModel.from_transformer(pipe.transformer, 1, channels)
        generator = torch.Generator().manual_seed(2)
        for parameter in net.parameters():
            if not parameter.any():  # it starts as a ControlNet without effect
                parameter.data.normal_(0, 0.1, generator=generator)
        return {"controlnet": net}

    return make


def pag(pipe):
    return {"pag_applied_layers": ["blocks.0"]}


def nothing(pipe):
    return {}


PIPELINES = {
    StableDiffusion3Pipeline: (nothing, {}),
    StableDiffusion3Img2ImgPipeline: (nothing, IMG2IMG),
    StableDiffusion3InpaintPipeline: (nothing, IMG2IMG | {"mask_image": MASK}),
    StableDiffusion3PAGPipeline: (pag, {}),
    StableDiffusion3PAGImg2ImgPipeline: (pag, IMG2IMG),
    StableDiffusion3ControlNetPipeline: (controlnet(0), CONTROL),
    StableDiffusion3ControlNetInpaintingPipeline: (controlnet(1), CONTROL | {"control_mask": MASK}),
}


@pytest.mark.parametrize("guidance_scale", [1.0, 5.0])
@pytest.mark.parametrize("made", PIPELINES, ids=lambda made: made.__name__)
def test_every_pipeline_of_the_family_draws_what_stock_draws(stock, ours, made, guidance_scale):
    extra, settings = PIPELINES[made]
    parts, drawn = extra(stock), []
    for pipe in (stock, ours):
        other = made.from_pipe(pipe, **parts)
        assert type(other) is made
        drawn.append(latents(other, guidance_scale=guidance_scale, **settings))
        assert can_fold(pipe.transformer.transformer_blocks) == (pipe is ours)  # as it was before
    assert relative(drawn[1], drawn[0]) < CLOSE


def test_the_stock_class_around_our_parts_draws_what_stock_draws(stock, ours):
    around = StableDiffusion3Pipeline(**ours.components)
    assert relative(latents(around), latents(stock)) < CLOSE


def test_the_zero_tokens_matter(stock):
    """So the equalities in this file bite: with fewer of them the picture is another."""
    assert relative(latents(stock, max_sequence_length=1), latents(stock)) > APART


SETTINGS = {
    "one token": {"max_sequence_length": 1},
    "two tokens": {"max_sequence_length": 2},
    "77 tokens": {"max_sequence_length": 77},
    "512 tokens": {"max_sequence_length": 512},
    "unguided": {"guidance_scale": 1.0},
    "prompts": {"prompt": PROMPTS},
    "images per prompt": {"prompt": PROMPTS, "num_images_per_prompt": 2},
    "negative": {"negative_prompt": "a blue pizza"},
    "clip skip": {"clip_skip": 0},
    "skipped layers": {
        "num_inference_steps": 4,
        "skip_guidance_layers": [0],
        "skip_layer_guidance_stop": 1.0,
    },
    "attention's arguments": {"joint_attention_kwargs": {}},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_every_argument_means_what_it_means_in_stock(stock, ours, name):
    assert relative(latents(ours, **SETTINGS[name]), latents(stock, **SETTINGS[name])) < CLOSE


@pytest.mark.parametrize("length", [1, 99, 256])
def test_prompts_are_encoded_as_stock_encodes_them(stock, ours, length):
    """So embeddings may be kept, and used in any pipeline."""
    expected = stock.encode_prompt(PROMPTS, None, None, max_sequence_length=length)
    embeds = ours.encode_prompt(PROMPTS, None, None, max_sequence_length=length)
    assert embeds[0].shape[1] == 31 + length
    assert all(torch.equal(a, b) for a, b in zip(embeds, expected, strict=True))
    names = ("prompt", "negative_prompt", "pooled_prompt", "negative_pooled_prompt")
    given = {f"{name}_embeds": leaf for name, leaf in zip(names, embeds, strict=True)}
    given["prompt"] = None
    assert relative(latents(ours, **given), latents(stock, **given)) < CLOSE


def test_tokens_are_folded_in_any_pipeline(ours):
    pipe = StableDiffusion3Pipeline(**ours.components)
    pipe.transformer = copy.deepcopy(ours.transformer)
    seen = []
    pipe.transformer.context_embedder.register_forward_hook(
        lambda module, args, output: seen.append(output.shape[1])
    )
    latents(pipe)
    latents(pipe, max_sequence_length=512)
    latents(StableDiffusion3Img2ImgPipeline.from_pipe(pipe), **IMG2IMG)
    assert len(seen) >= 5 and set(seen) == {SHORT}


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0])
def test_the_scale_of_a_lora_reaches_it(stock, ours, scale):
    given, drawn = {"joint_attention_kwargs": {"scale": scale}}, []
    for pipe in (stock, ours):
        pipe = StableDiffusion3Pipeline(
            **(pipe.components | {"transformer": copy.deepcopy(pipe.transformer)})
        )
        add_lora(pipe.transformer, 4)
        generator = torch.Generator().manual_seed(6)
        for name, parameter in pipe.transformer.named_parameters():
            if "lora_" in name:
                parameter.data.normal_(0, 0.2, generator=generator)
        drawn.append(latents(pipe, **given))
    assert relative(drawn[1], drawn[0]) < CLOSE
    assert (relative(drawn[1], latents(stock)) > APART) == (scale > 0)
    assert given["joint_attention_kwargs"] == {"scale": scale}  # the caller's own dict


@pytest.mark.parametrize("made", [StableDiffusion3Pipeline, StableDiffusion3Img2ImgPipeline])
def test_what_is_saved_is_stock(stock, ours, made, tmp_path):
    made.from_pipe(ours).save_pretrained(tmp_path)
    again = made.from_pretrained(tmp_path, text_encoder_3=None, tokenizer_3=None)
    assert not can_fold(again.transformer.transformer_blocks)
    settings = PIPELINES[made][1]
    expected = latents(made.from_pipe(stock), **settings)
    assert relative(latents(again, **settings), expected) < CLOSE
