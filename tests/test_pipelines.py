"""A loaded pipeline draws as its network was taught, and what it saves says so again."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from diffusers import (
    AutoPipelineForText2Image,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    StableDiffusion3Img2ImgPipeline,
    StableDiffusion3Pipeline,
)

from flowsteer import RectifiedFlowMatchEulerDiscreteScheduler
from flowsteer.generation import Settings, generate
from flowsteer.loading import load_pipeline, pipeline_info, with_student
from flowsteer.noise import initial_noise
from flowsteer.pipeline_info import PIPELINE_FILE
from flowsteer.students import INFO_FILE

NOISE = initial_noise(0, (1, 16, 16, 16))
SCALE = "guidance_scale"


def draw(pipe, *args, **kwargs):
    given = {"latents": NOISE, "output_type": "latent"} | kwargs
    return pipe(*(args or ([] if "prompt" in given else ["a koala"])), **given).images


def stock(folder):
    """Opened as anybody would, without a word about T5."""
    pipe = StableDiffusion3Pipeline.from_pretrained(folder, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(params=["lora_student", "full_student"])
def student(request, tiny_folder):
    folder = request.getfixturevalue(request.param)
    return load_pipeline(str(tiny_folder), student=folder, device="cpu")


def test_a_student_draws_as_it_was_taught_unless_told_otherwise(student):
    taught = draw(student, num_inference_steps=4, guidance_scale=1.0)
    assert torch.equal(draw(student), taught)
    assert torch.equal(draw(student, num_inference_steps=4), taught)
    assert torch.equal(draw(student, prompt="a koala", guidance_scale=1.0), taught)
    positional = ("a koala", None, None, None, None, 8)
    eight = draw(student, num_inference_steps=8, guidance_scale=1.0)
    assert torch.equal(draw(student, *positional), eight)
    guided = draw(student, num_inference_steps=4, guidance_scale=7.0)
    assert torch.equal(draw(student, *positional[:-1], 4, None, 7.0), guided)
    assert not torch.allclose(guided, taught)
    with pytest.raises(ValueError, match="edge"):
        draw(student, num_inference_steps=3)


def test_a_teacher_draws_at_its_own_scale_in_28_steps():
    pipe = load_pipeline("emoji", device="cpu")
    scale = pipeline_info(pipe).guidance_scale
    assert torch.equal(draw(pipe), draw(pipe, num_inference_steps=28, guidance_scale=scale))
    unguided = draw(pipe, num_inference_steps=2, guidance_scale=1.0)
    assert not torch.allclose(draw(pipe, num_inference_steps=2), unguided)


def test_a_twin_of_a_stock_pipeline_has_a_student_s_defaults(tiny_folder, lora_student):
    pipe = StableDiffusion3Pipeline.from_pretrained(
        tiny_folder, text_encoder_3=None, tokenizer_3=None
    )
    pipe.scheduler = RectifiedFlowMatchEulerDiscreteScheduler.from_config(pipe.scheduler.config)
    twin = with_student(pipe, lora_student)
    assert torch.equal(draw(twin), draw(twin, num_inference_steps=4, guidance_scale=1.0))


def test_threads_may_call_pipelines_that_share_a_tokenizer(tiny):
    twins = [with_student(tiny, None) for _ in range(4)]
    prompts = ("a koala", "a 3d pizza left of a red car", "a", "two flat dogs on a blue background")
    encode = twins[0].encode_prompt
    expected = [encode(prompt, None, None)[0] for prompt in prompts]

    def work(place):
        found = (twins[place].encode_prompt(prompts[place], None, None)[0] for _ in range(60))
        return all(torch.equal(embeds, expected[place]) for embeds in found)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))


def test_a_student_refuses_stock_s_grid_put_in_later(student):
    student.scheduler = FlowMatchEulerDiscreteScheduler.from_config(student.scheduler.config)
    with pytest.raises(ValueError, match=r"\[1, 0.9, 0.75, 0.5, 0\]"):
        draw(student)


def test_sigmas_of_one_s_own_must_have_its_edges_too(student):
    expected = draw(student)
    student.scheduler = FlowMatchEulerDiscreteScheduler.from_config(student.scheduler.config)
    torch.testing.assert_close(draw(student, sigmas=[1, 0.75, 0.5, 0.25]), expected)
    with pytest.raises(ValueError, match=r"misses \[0.9, 0.75, 0.5\]"):
        draw(student, sigmas=[1, 0.8, 0.6, 0.1])


def test_a_scheduler_without_edges_is_held_to_the_student_s(student):
    expected = draw(student)
    student.scheduler = RectifiedFlowMatchEulerDiscreteScheduler(shift=3.0)
    assert torch.equal(draw(student), expected)
    with pytest.raises(ValueError, match=r"misses \[0.9, 0.75, 0.5\]"):
        draw(student, num_inference_steps=3)
    student.scheduler = RectifiedFlowMatchEulerDiscreteScheduler(allow_grid_mismatch=True)
    assert draw(student, num_inference_steps=3).isfinite().all()


def test_a_student_refuses_steps_of_another_kind(student):
    student.scheduler = FlowMatchHeunDiscreteScheduler(shift=3.0)
    with pytest.raises(ValueError, match="uses FlowMatchHeunDiscreteScheduler"):
        draw(student)


def test_another_pipeline_of_a_student_s_parts_draws_as_it_does(student, tiny):
    twin = type(student).from_pipe(student)
    twin.set_progress_bar_config(disable=True)
    assert torch.equal(draw(twin), draw(student))
    other = type(student).from_pipe(student, transformer=tiny.transformer)
    assert pipeline_info(other).student is None


def test_a_saved_student_knows_itself(student, tmp_path):
    taught = draw(student)
    for folder in (tmp_path / "first", tmp_path / "again"):
        student.save_pretrained(folder)
        student = load_pipeline(str(folder), device="cpu")
        assert Settings().resolve(student) == Settings(str(folder), 4, 1.0)
        torch.testing.assert_close(draw(student), taught)
        for call in (draw, lambda pipe, **k: generate(pipe, "a koala", 0, Settings(**k))):
            with pytest.raises(ValueError, match="edge"):
                call(student, num_inference_steps=3)
    mismatched = load_pipeline(str(folder), device="cpu", allow_grid_mismatch=True)
    assert draw(mismatched, num_inference_steps=3).isfinite().all()
    with pytest.raises(ValueError, match="is a student itself"):
        load_pipeline(str(folder), student="flowsteer", device="cpu")


def test_a_saved_student_s_folder_is_a_student_too(student, tiny, tmp_path):
    student.save_pretrained(tmp_path)
    torch.testing.assert_close(draw(with_student(tiny, tmp_path)), draw(student))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("who", ["teacher", "lora_student", "full_student"])
def test_what_is_saved_is_an_ordinary_pipeline(tiny_folder, tmp_path, request, who, dtype):
    student = None if who == "teacher" else request.getfixturevalue(who)
    pipe = load_pipeline(str(tiny_folder), student=student, device="cpu", dtype=dtype)
    pipe.save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    libraries = {entry[0] for entry in index.values() if isinstance(entry, list)}
    assert libraries <= {"diffusers", "transformers", None}
    assert index["scheduler"] == ["diffusers", "FlowMatchEulerDiscreteScheduler"]
    config = json.loads((tmp_path / "scheduler" / "scheduler_config.json").read_text())
    assert config["_class_name"] == "FlowMatchEulerDiscreteScheduler"
    assert not config.keys() & {"window_edges", "allow_grid_mismatch"}
    grid = {"sigmas": [1, 0.75, 0.5, 0.25], "guidance_scale": 1.0}
    ours = load_pipeline(str(tmp_path), device="cpu")
    expected = draw(ours, num_inference_steps=4, guidance_scale=1.0)
    torch.testing.assert_close(draw(stock(tmp_path), **grid), expected, atol=5e-5, rtol=1e-4)


def test_it_opens_where_flowsteer_is_not_imported(student, tmp_path):
    student.save_pretrained(tmp_path)
    code = (
        "import sys; from diffusers import DiffusionPipeline;"
        f"DiffusionPipeline.from_pretrained({str(tmp_path)!r}, local_files_only=True);"
        "sys.exit('flowsteer' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    opened = AutoPipelineForText2Image.from_pretrained(tmp_path, local_files_only=True)
    assert type(opened) is StableDiffusion3Pipeline


def test_a_saved_teacher_keeps_its_scale_and_reads_emoji(tmp_path):
    pipe = load_pipeline("emoji", device="cpu")
    pipe.save_pretrained(tmp_path)
    again = load_pipeline(str(tmp_path), device="cpu")
    assert Settings().resolve(again) == Settings().resolve(pipe)
    assert again.text_encoder_3 is None
    words, picture = (again.encode_prompt(text, None, None)[0] for text in ("a koala", "A 🐨!"))
    assert torch.equal(words, picture)


def test_a_teacher_saved_over_a_student_is_no_student(student, tiny, tmp_path):
    student.save_pretrained(tmp_path)
    assert (tmp_path / INFO_FILE).is_file()
    tiny.save_pretrained(tmp_path)
    assert pipeline_info(load_pipeline(str(tmp_path), device="cpu")).student is None


def test_a_pipeline_is_not_saved_over_a_lora_student(tiny, lora_student):
    before = sorted(path.name for path in lora_student.iterdir())
    with pytest.raises(ValueError, match="save the pipeline to another folder"):
        tiny.save_pretrained(lora_student)
    assert sorted(path.name for path in lora_student.iterdir()) == before


def test_adapters_are_not_saved_as_half_a_network(tiny, lora_student, tmp_path):
    tiny.load_lora_weights(str(lora_student), adapter_name="style", local_files_only=True)
    with pytest.raises(ValueError, match="transformer carries the adapter style"):
        tiny.save_pretrained(tmp_path / "new")
    assert not (tmp_path / "new").exists()
    tiny.fuse_lora(components=["transformer"])
    tiny.unload_lora_weights()
    tiny.save_pretrained(tmp_path / "new")
    again, steps = load_pipeline(str(tmp_path / "new"), device="cpu"), {"num_inference_steps": 2}
    torch.testing.assert_close(draw(again, **steps), draw(tiny, **steps))


def test_other_forms_of_weights(student, tmp_path):
    student.save_pretrained(tmp_path / "shards", max_shard_size="100KB")
    again = load_pipeline(str(tmp_path / "shards"), device="cpu")
    torch.testing.assert_close(draw(again), draw(student))
    student.save_pretrained(tmp_path / "half", variant="fp16")
    StableDiffusion3Pipeline.from_pretrained(tmp_path / "half", variant="fp16")
    student.save_pretrained(tmp_path / "pickles", safe_serialization=False)
    for folder in ("half", "pickles"):
        with pytest.raises(ValueError, match="safetensors") as caught:
            load_pipeline(str(tmp_path / folder), device="cpu")
        assert "\n" not in str(caught.value)


def test_uploads_take_along_what_is_known(student, tmp_path, monkeypatch):
    sent = {}
    monkeypatch.setattr("diffusers.utils.hub_utils.create_repo", lambda *a, **k: _Repo())
    monkeypatch.setattr("diffusers.utils.hub_utils.load_or_create_model_card", lambda *a, **k: {})
    monkeypatch.setattr("diffusers.utils.hub_utils.populate_model_card", lambda card: _Card())

    def upload(self, folder, *args, **kwargs):
        from pathlib import Path

        sent.update({path.name: path.read_text() for path in Path(folder).glob("*.json")})

    monkeypatch.setattr(type(student), "_upload_folder", upload)
    student.push_to_hub("someone/student")
    assert {INFO_FILE, PIPELINE_FILE, "model_index.json"} <= sent.keys()


class _Repo:
    repo_id = "someone/student"


class _Card:
    def save(self, path):
        """Cards are stock's business."""


def test_image_to_image_shares_the_student_s_parts(student):
    pipe = StableDiffusion3Img2ImgPipeline.from_pipe(student)
    assert pipe.transformer is student.transformer


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ([], "must hold a JSON object"),
        ({SCALE: "much"}, "guidance_scale = 'much' must be a number"),
        ({SCALE: 1e400}, "guidance_scale|number"),
        ({"reads": "minds"}, "reads = 'minds' must be text or emoji"),
        ({"has_t5": 1}, "has_t5 = 1 must be true or false"),
    ],
)
def test_a_file_that_lies_is_named(tiny, tmp_path, values, problem):
    tiny.save_pretrained(tmp_path)
    (tmp_path / PIPELINE_FILE).write_text(json.dumps(values))
    with pytest.raises(ValueError, match=problem) as caught:
        load_pipeline(str(tmp_path), device="cpu")
    assert PIPELINE_FILE in str(caught.value) and "\n" not in str(caught.value)


HUB = """
import flowsteer
from flowsteer.generation import Settings
pipe = flowsteer.load_pipeline("someone/student", device="cpu")
print(Settings().resolve(pipe))
"""


def test_a_student_of_the_hub_knows_itself(student, tmp_path):
    """From a cache as the hub's client leaves it, so without a network."""
    repo = tmp_path / "models--someone--student"
    student.save_pretrained(repo / "snapshots" / "abc")
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("abc")
    env = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", HUB], capture_output=True, text=True, env=env)
    assert done.stdout.strip() == str(Settings("someone/student", 4, 1.0)), done.stderr
