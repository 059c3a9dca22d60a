import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, StableDiffusion3Pipeline

import flowsteer
from flowsteer import RectifiedFlowMatchEulerDiscreteScheduler, load_pipeline
from flowsteer.loading import pipeline_info, with_student
from flowsteer.noise import initial_noise
from flowsteer.students import INFO_FILE, LORA_FILE

NOISE = initial_noise(0, (1, 16, 16, 16))


def latents(pipe, **settings):
    return pipe("a koala", latents=NOISE, output_type="latent", **settings).images


def test_a_folder_comes_folded_with_the_rectified_scheduler(tiny, tiny_folder):
    assert type(tiny.scheduler) is RectifiedFlowMatchEulerDiscreteScheduler
    assert tiny.scheduler.config.shift == 3.0
    assert tiny.transformer.dtype == torch.float32
    info = pipeline_info(tiny)
    assert (info.model, info.student, info.guidance_scale) == (str(tiny_folder), None, 7.0)


def test_it_draws_what_stock_diffusers_draws_on_the_same_grid(tiny, tiny_folder):
    stock = StableDiffusion3Pipeline.from_pretrained(
        tiny_folder, text_encoder_3=None, tokenizer_3=None
    )
    stock.set_progress_bar_config(disable=True)
    expected = latents(stock, sigmas=[1, 0.75, 0.5, 0.25], guidance_scale=3.0)
    torch.testing.assert_close(
        latents(tiny, num_inference_steps=4, guidance_scale=3.0), expected, atol=2e-5, rtol=1e-5
    )


def test_the_stock_scheduler_on_request(tiny_folder):
    pipe = load_pipeline(str(tiny_folder), scheduler="stock", device="cpu")
    assert type(pipe.scheduler) is FlowMatchEulerDiscreteScheduler


@pytest.mark.parametrize("dtype", ["bfloat16", torch.bfloat16])
def test_dtypes_by_name_or_value(tiny_folder, dtype):
    pipe = load_pipeline(str(tiny_folder), dtype=dtype, device="cpu")
    for network in (pipe.transformer, pipe.vae, pipe.text_encoder, pipe.text_encoder_2):
        assert network.dtype == torch.bfloat16
    assert torch.isfinite(latents(pipe, num_inference_steps=2)).all()


def test_a_saved_pipeline_opens_in_stock_diffusers(tiny, tmp_path):
    tiny.scheduler = FlowMatchEulerDiscreteScheduler.from_config(tiny.scheduler.config)
    tiny.save_pretrained(tmp_path)
    stock = StableDiffusion3Pipeline.from_pretrained(
        tmp_path, text_encoder_3=None, tokenizer_3=None
    )
    stock.set_progress_bar_config(disable=True)
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert index["_class_name"] == "StableDiffusion3Pipeline"
    torch.testing.assert_close(
        latents(stock, num_inference_steps=4),
        latents(tiny, num_inference_steps=4),
        atol=2e-5,
        rtol=1e-5,
    )


@pytest.mark.parametrize(
    "model",
    ["emojis", "", "a/b/c", "./out", "no such folder", "/no/folder"]
    + ["x" * 5000, "a/" + "x" * 5000, "a\0b"],
)
def test_unknown_models_list_what_there_is(model):
    with pytest.raises(ValueError, match=r"model = .* is unknown; use emoji, an existing"):
        load_pipeline(model)


@pytest.mark.parametrize("model", [3, None, b"emoji", ["emoji"]])
def test_a_model_is_text_or_a_path(model):
    with pytest.raises(ValueError, match="model = .* must be text: a name, or the path"):
        load_pipeline(model)


def test_a_hub_model_that_cannot_be_fetched_is_one_line():
    code = "import flowsteer; flowsteer.load_pipeline('no-such-org/no-such-model')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )
    error = done.stderr.strip().splitlines()[-1]
    assert error.startswith("ValueError: model = 'no-such-org/no-such-model': the hub model")
    assert error.endswith("check the id, your access to it (hf auth login) and the network")


def test_folders_that_are_no_pipeline(tmp_path, tiny_folder):
    with pytest.raises(ValueError, match="is no pipeline: the folder has no model_index.json"):
        load_pipeline(str(tmp_path))
    (tmp_path / "model_index.json").write_text("{")
    with pytest.raises(ValueError, match="does not load as a pipeline"):
        load_pipeline(str(tmp_path))
    broken = tmp_path / "broken"
    shutil.copytree(tiny_folder, broken)
    shutil.rmtree(broken / "vae")
    with pytest.raises(ValueError, match="does not load as a pipeline") as caught:
        load_pipeline(str(broken))
    assert "\n" not in str(caught.value)


def test_torn_weights_are_one_line(tmp_path, tiny_folder):
    torn = tmp_path / "torn"
    shutil.copytree(tiny_folder, torn)
    (weights,) = (torn / "transformer").glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match="does not load as a pipeline") as caught:
        load_pipeline(str(torn))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("device", "tpu9"),
        ("device", "cuda:99"),
        ("device", "meta"),
        ("dtype", "int8"),
        ("dtype", torch.int32),
    ]
    + [("scheduler", "ddim"), ("student", "nobody"), ("student", 3), ("student", b"ota")]
    + [("allow_grid_mismatch", "no")],
)
def test_other_bad_arguments_are_named(tiny_folder, argument, value):
    with pytest.raises(ValueError, match=argument):
        load_pipeline(str(tiny_folder), **{argument: value})


def test_a_model_with_another_kind_of_scheduler_is_refused(tmp_path, tiny_folder):
    folder = tmp_path / "ddim"
    shutil.copytree(tiny_folder, folder)
    index = json.loads((folder / "model_index.json").read_text())
    index["scheduler"] = ["diffusers", "DDIMScheduler"]
    (folder / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="FlowMatchEulerDiscreteScheduler"):
        load_pipeline(str(folder))


def test_a_lora_student_equals_stock_diffusers_with_the_same_lora(tiny_folder, lora_student):
    ours = load_pipeline(str(tiny_folder), student=lora_student, device="cpu")
    stock = StableDiffusion3Pipeline.from_pretrained(
        tiny_folder, text_encoder_3=None, tokenizer_3=None
    )
    stock.set_progress_bar_config(disable=True)
    grid = {"sigmas": [1, 0.75, 0.5, 0.25], "guidance_scale": 1.0}
    teacher = latents(stock, **grid)
    stock.load_lora_weights(str(lora_student), weight_name=LORA_FILE)
    expected = latents(stock, **grid)
    drawn = latents(ours, num_inference_steps=4, guidance_scale=1.0)
    assert (expected - teacher).norm() > 0.02 * teacher.norm()
    torch.testing.assert_close(drawn, expected, atol=5e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_lora_student_has_plain_layers(tiny_folder, lora_student, dtype):
    pipe = load_pipeline(str(tiny_folder), student=lora_student, device="cpu", dtype=dtype)
    assert not any("lora" in name for name, _ in pipe.transformer.named_modules())


def test_a_full_student_replaces_the_transformer(tiny, tiny_folder, full_student):
    pipe = load_pipeline(str(tiny_folder), student=full_student, device="cpu")
    ratio = pipe.transformer.proj_out.weight.norm() / tiny.transformer.proj_out.weight.norm()
    assert ratio.item() == pytest.approx(1.5, rel=1e-3)
    student, teacher = (latents(p, num_inference_steps=4, guidance_scale=1.0) for p in (pipe, tiny))
    assert (student - teacher).norm() > 0.02 * teacher.norm()


def test_a_student_refuses_grids_without_its_edges(tiny_folder, lora_student):
    pipe = load_pipeline(str(tiny_folder), student=lora_student, device="cpu")
    latents(pipe, num_inference_steps=8, guidance_scale=1.0)
    with pytest.raises(ValueError, match=r"\[1, 0.9, 0.75, 0.5, 0\]"):
        latents(pipe, num_inference_steps=3, guidance_scale=1.0)
    with pytest.raises(ValueError, match="allow_grid_mismatch"):
        load_pipeline(str(tiny_folder), student=lora_student, device="cpu", scheduler="stock")


def test_a_mismatch_can_be_asked_for(tiny_folder, lora_student):
    pipe = load_pipeline(
        str(tiny_folder), student=lora_student, device="cpu", allow_grid_mismatch=True
    )
    latents(pipe, num_inference_steps=3, guidance_scale=1.0)
    assert pipeline_info(pipe).allow_grid_mismatch


@pytest.mark.parametrize("damage", ["other keys", "torn", "other shapes"])
def test_students_that_do_not_fit_are_one_line(tmp_path, tiny_folder, lora_student, damage):
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "student"
    shutil.copytree(lora_student, folder)
    path = folder / LORA_FILE
    if damage == "torn":
        path.write_bytes(path.read_bytes()[:500])
    elif damage == "other keys":
        save_file({"unet.lora_A.weight": torch.zeros(4, 4)}, path)
    else:
        weights = load_file(path)
        save_file({name: torch.zeros(3, 3) for name in weights}, path)
    with pytest.raises(ValueError, match="does not fit") as caught:
        load_pipeline(str(tiny_folder), student=folder, device="cpu")
    assert "\n" not in str(caught.value)


def test_a_twin_shares_all_but_transformer_and_scheduler(tiny, lora_student):
    before = latents(tiny, num_inference_steps=4, guidance_scale=1.0)
    twin = with_student(tiny, lora_student)
    assert type(twin) is type(tiny)
    assert twin.vae is tiny.vae
    assert twin.text_encoder is tiny.text_encoder
    assert twin.transformer is not tiny.transformer
    assert pipeline_info(twin).student.info.method == "ota"
    assert pipeline_info(tiny).student is None
    after = latents(tiny, num_inference_steps=4, guidance_scale=1.0)
    assert torch.equal(before, after)
    assert not torch.allclose(latents(twin, num_inference_steps=4, guidance_scale=1.0), before)
    with pytest.raises(ValueError, match="give its teacher's"):
        with_student(twin, lora_student)


def test_a_student_folder_given_as_model_is_told_apart(lora_student):
    assert (lora_student / INFO_FILE).is_file()
    with pytest.raises(ValueError, match="is a student; give it as student="):
        load_pipeline(str(lora_student))


def test_the_bundled_model_loads_and_reads_emoji():
    pipe = load_pipeline(device="cpu")
    assert pipeline_info(pipe).model == "emoji"
    assert pipeline_info(pipe).guidance_scale > 1
    by_name, by_picture = (
        pipe.encode_prompt(text, None, None, do_classifier_free_guidance=False)[0]
        for text in ("a koala", "A 🐨!")
    )
    assert torch.equal(by_name, by_picture)


def test_it_is_exported():
    assert flowsteer.load_pipeline is load_pipeline


def test_a_twin_keeps_the_shift_that_was_set(tiny):
    tiny.scheduler.set_shift(2.0)
    assert with_student(tiny, None).scheduler.shift == 2.0


def test_threads_load_at_once(tiny, tiny_folder, lora_student):
    from concurrent.futures import ThreadPoolExecutor

    from diffusers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    expected = latents(with_student(tiny, lora_student))

    def load(number):
        if number % 2:
            return latents(with_student(tiny, lora_student))
        dtype = "bfloat16" if number % 4 else "float32"
        pipe = load_pipeline(str(tiny_folder), student=lora_student, device="cpu", dtype=dtype)
        return latents(pipe).float()

    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(load, range(8)):
            assert (found - expected).norm() < 0.02 * expected.norm()
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == (level, bars)
    assert torch.get_default_dtype() == torch.float32
