"""The bundled teacher and student, through stock diffusers alone and beside our own loader."""

import pytest
import torch
from diffusers import (
    AutoPipelineForImage2Image,
    AutoPipelineForInpainting,
    AutoPipelineForText2Image,
    FlowMatchEulerDiscreteScheduler,
    StableDiffusion3Img2ImgPipeline,
    StableDiffusion3InpaintPipeline,
    StableDiffusion3Pipeline,
)
from PIL import Image

import flowsteer
from flowsteer.emoji.pipeline import LATENT_SHAPE
from flowsteer.emoji.prompts import load_prompts
from flowsteer.evaluation.study import Variant, prepare, sample
from flowsteer.loading import BUNDLED_MODELS, with_student
from flowsteer.measure import relative_l2
from flowsteer.noise import initial_noise
from flowsteer.students import BUNDLED_STUDENTS, bundled_students

FOLDER = BUNDLED_MODELS["emoji"]
STUDENT = BUNDLED_STUDENTS / "flowsteer"
PROMPT = "a 3d koala on a blue background"
MEGABYTE = 1_000_000

needs_student = pytest.mark.skipif(
    "flowsteer" not in bundled_students(), reason="needs the shipped student"
)


def load_stock():
    pipe = StableDiffusion3Pipeline.from_pretrained(FOLDER, text_encoder_3=None, tokenizer_3=None)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def stock():
    return load_stock()


@pytest.fixture(scope="module")
def teacher():
    return flowsteer.load_pipeline(device="cpu")


def test_a_plain_stock_load_is_float32_everywhere(stock):
    assert type(stock) is StableDiffusion3Pipeline
    networks = (stock.transformer, stock.vae, stock.text_encoder, stock.text_encoder_2)
    dtypes = {parameter.dtype for network in networks for parameter in network.parameters()}
    assert dtypes == {torch.float32}
    for path in (FOLDER / "model_index.json", FOLDER / "scheduler" / "scheduler_config.json"):
        assert "flowsteer" not in path.read_text().lower()


def test_a_plain_stock_call_draws(stock):
    """Only the steps are fewer than the default; guidance stays at the pipeline's own 7."""
    picture = stock(PROMPT, num_inference_steps=3, output_type="pt").images[0]
    assert picture.shape == (3, 128, 128) and picture.isfinite().all()
    assert stock.guidance_scale == 7
    red, green, blue = picture[:, :8].mean((1, 2))
    assert blue > red + 0.2


@pytest.mark.parametrize("guidance_scale", [1.0, 4.0])
def test_the_folded_form_equals_stock(stock, teacher, guidance_scale):
    settings = {
        "latents": initial_noise(3, LATENT_SHAPE)[None],
        "guidance_scale": guidance_scale,
        "output_type": "latent",
        "sigmas": [1, 0.75, 0.5, 0.25],
    }
    expected, got = stock(PROMPT, **settings).images, teacher(PROMPT, **settings).images
    assert relative_l2(got, expected).item() < 1e-4


AUTO = {
    AutoPipelineForText2Image: StableDiffusion3Pipeline,
    AutoPipelineForImage2Image: StableDiffusion3Img2ImgPipeline,
    AutoPipelineForInpainting: StableDiffusion3InpaintPipeline,
}


@pytest.mark.parametrize("auto", AUTO, ids=lambda auto: auto.__name__)
def test_pipelines_made_of_its_parts_are_stock_and_draw_what_stock_draws(stock, teacher, auto):
    picture = Image.new("RGB", (128, 128), "red")
    settings = {
        AutoPipelineForText2Image: {},
        AutoPipelineForImage2Image: {"image": picture},
        AutoPipelineForInpainting: {"image": picture, "mask_image": Image.new("L", (128, 128), 99)},
    }[auto]
    drawn, made = [], AUTO[auto]
    for pipe in (made.from_pipe(stock), auto.from_pipe(teacher)):
        assert type(pipe) is made
        pipe.scheduler = FlowMatchEulerDiscreteScheduler.from_config(stock.scheduler.config)
        pipe.set_progress_bar_config(disable=True)
        generator = torch.Generator().manual_seed(1)
        common = {"num_inference_steps": 3, "generator": generator, "output_type": "latent"}
        drawn.append(pipe(PROMPT, **common, **settings).images)
    assert relative_l2(drawn[1], drawn[0]).item() < 1e-5


@needs_student
def test_five_lines_of_stock_diffusers_run_the_student():
    pipe = load_stock()
    pipe.load_lora_weights(str(STUDENT))
    noise = initial_noise(11, LATENT_SHAPE)[None]
    call = {"latents": noise, "guidance_scale": 1.0}
    ours = flowsteer.load_pipeline(student="flowsteer", device="cpu")
    got = pipe(PROMPT, sigmas=[1, 0.75, 0.5, 0.25], output_type="pt", **call).images
    expected = ours(PROMPT, num_inference_steps=4, output_type="pt", **call).images
    assert pipe.scheduler.sigmas.tolist() == pytest.approx([1, 0.9, 0.75, 0.5, 0])
    assert (got - expected).abs().max() < 1e-3
    pipe.unload_lora_weights()
    base = pipe(PROMPT, sigmas=[1, 0.75, 0.5, 0.25], output_type="pt", **call).images
    assert (got - base).abs().max() > 0.1  # the LoRA does something


@needs_student
def test_the_student_comes_closer_than_the_teachers_own_four_calls(teacher):
    """One dev prompt a task; both take four unguided calls on the rectified grid."""
    setting = prepare(teacher, load_prompts("dev", 6))
    reference = sample(teacher, setting, Variant("teacher", 28, 4.0))
    four = Variant("four calls", 4)
    plain = relative_l2(sample(teacher, setting, four), reference)
    student = with_student(teacher, "flowsteer")
    taught = relative_l2(sample(student, setting, four), reference)
    assert taught.mean() < 0.8 * plain.mean()


@needs_student
def test_the_students_lora_is_small():
    assert sum(path.stat().st_size for path in STUDENT.iterdir()) < 5.5 * MEGABYTE
