"""A student in its teacher's pipeline: below any style, never through the shared encoders."""

import shutil

import pytest
import torch

from flowsteer.loading import load_pipeline, with_student
from flowsteer.noise import initial_noise
from flowsteer.students import LORA_FILE

NOISE = initial_noise(0, (1, 16, 16, 16))


def latents(pipe, **settings):
    return pipe("a koala", latents=NOISE, output_type="latent", **settings).images


@pytest.fixture(scope="session")
def style(tiny_folder, tmp_path_factory):
    """A LoRA such as users load, of another rank than the student's."""
    from diffusers import SD3Transformer2DModel

    from flowsteer.models.lora import add_lora, save_lora

    transformer = SD3Transformer2DModel.from_pretrained(tiny_folder, subfolder="transformer")
    config = add_lora(transformer, rank=2, alpha=2.0)
    generator = torch.Generator().manual_seed(5)
    for parameter in transformer.parameters():
        if parameter.requires_grad:
            parameter.data.normal_(0, 0.1, generator=generator)
    folder = tmp_path_factory.mktemp("styles") / "style"
    save_lora(transformer, config, folder)
    return str(folder)


def with_styles(pipe, style, what):
    """Load a style or two, then do what users do with them."""
    options = {"weight_name": LORA_FILE, "local_files_only": True}
    pipe.load_lora_weights(style, adapter_name="style", **options)
    if what == "another":
        pipe.load_lora_weights(style, adapter_name="second", **options)
        pipe.set_adapters(["style", "second"], [0.5, -1.0])
    elif what == "weaker":
        pipe.set_adapters(["style"], [0.3])
    elif what == "fused":
        pipe.fuse_lora(components=["transformer"])
        pipe.unload_lora_weights()
    elif what == "disabled":
        pipe.disable_lora()
    elif what == "unloaded":
        pipe.unload_lora_weights()
    elif what == "deleted":
        pipe.delete_adapters("style")
    return latents(pipe).float()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize(
    "what", ["loaded", "another", "weaker", "fused", "disabled", "unloaded", "deleted"]
)
def test_a_style_does_not_switch_a_student_off(tiny_folder, lora_student, style, dtype, what):
    """Half precision draws what float32 draws; without the student it would be .6 off."""
    drawn = [
        with_styles(
            load_pipeline(str(tiny_folder), student=lora_student, device="cpu", dtype=kind),
            style,
            what,
        )
        for kind in ("float32", dtype)
    ]
    assert (drawn[1] - drawn[0]).norm() < 0.02 * drawn[0].norm()
    if what in ("disabled", "unloaded", "deleted"):
        plain = load_pipeline(str(tiny_folder), student=lora_student, device="cpu")
        torch.testing.assert_close(drawn[0], latents(plain))


def test_a_student_is_put_below_its_teacher_s_style(tiny, tiny_folder, lora_student, style):
    expected = with_styles(
        load_pipeline(str(tiny_folder), student=lora_student, device="cpu"), style, "loaded"
    )
    styled = with_styles(tiny, style, "loaded")
    twin = with_student(tiny, lora_student)
    torch.testing.assert_close(latents(twin), expected, atol=1e-5, rtol=1e-4)
    assert torch.equal(latents(tiny), styled)


def test_a_full_student_would_lose_the_style(tiny, full_student, style):
    with_styles(tiny, style, "loaded")
    with pytest.raises(ValueError, match="adapter style would be lost"):
        with_student(tiny, full_student)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_student_that_changes_the_shared_encoder_is_refused(
    tiny_folder, lora_student, tmp_path, dtype
):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(lora_student, tmp_path / "student")
    layer = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"
    extra = {f"{layer}.lora_{kind}.weight": torch.ones(4, 4) for kind in "AB"}
    save_file(load_file(folder / LORA_FILE) | extra, folder / LORA_FILE)
    teacher = load_pipeline(str(tiny_folder), device="cpu", dtype=dtype)
    before = latents(teacher, num_inference_steps=2)
    with pytest.raises(ValueError, match="text encoder .* teacher and student share") as caught:
        with_student(teacher, folder)
    assert "\n" not in str(caught.value)
    assert torch.equal(latents(teacher, num_inference_steps=2), before)


def test_a_student_s_scale_may_stand_in_its_description_alone(tiny_folder, lora_student, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(lora_student, tmp_path / "student")
    save_file(load_file(folder / LORA_FILE), folder / LORA_FILE)
    pair = (
        load_pipeline(str(tiny_folder), student=s, device="cpu") for s in (lora_student, folder)
    )
    torch.testing.assert_close(*map(latents, pair))


def test_a_full_student_of_another_shape_is_refused(tiny, full_student, tmp_path):
    from diffusers import SD3Transformer2DModel

    folder = shutil.copytree(full_student, tmp_path / "student")
    config = dict(tiny.transformer.config) | {"num_layers": 1}
    SD3Transformer2DModel.from_config(config).save_pretrained(folder / "transformer")
    with pytest.raises(ValueError, match="its transformer has num_layers = 1") as caught:
        with_student(tiny, folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("part", ["the whole", "forward"])
@pytest.mark.parametrize("who", ["lora_student", "full_student"])
def test_a_compiled_teacher_has_students(tiny, request, who, part):
    folder = request.getfixturevalue(who)
    expected = latents(with_student(tiny, folder))
    if part == "forward":
        tiny.transformer.forward = torch.compile(tiny.transformer.forward, backend="eager")
    else:
        tiny.transformer = torch.compile(tiny.transformer, backend="eager")
    torch.testing.assert_close(latents(with_student(tiny, folder)), expected)
