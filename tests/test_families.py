"""Pipelines that flowsteer cannot draw are refused by their model_index.json alone."""

import json

import pytest
import torch
from diffusers import StableDiffusion3Img2ImgPipeline
from PIL import Image

from flowsteer import RectifiedFlowMatchEulerDiscreteScheduler, load_pipeline
from flowsteer.cli.main import main
from flowsteer.comparing import PipelineSet
from flowsteer.evaluation.study import prepare
from flowsteer.generation import encode, generate, stream_pictures
from flowsteer.loading import check_drawable, with_student
from flowsteer.training.distillation import distill
from flowsteer.training.distillation_config import DistillationConfig
from flowsteer.training.sources import PromptSource

OTHERS = (
    "AuraFlowPipeline",
    "CogView4Pipeline",
    "FluxPipeline",
    "QwenImagePipeline",
    "SanaPipeline",
    "StableDiffusionXLPipeline",
    "StableDiffusion3Img2ImgPipeline",
    "WanPipeline",
    "ZImagePipeline",
    "NobodysPipeline",
)
ODD = (None, 3, ["a", "b"], {}, "", "a b", "Flux\nPipeline", "../FluxPipeline", True)


def index_folder(folder, value):
    """A pipeline's folder without weights: what is refused cannot have been loaded."""
    folder.mkdir()
    (folder / "model_index.json").write_text(json.dumps(value))
    return str(folder)


@pytest.mark.parametrize("kind", OTHERS)
def test_other_families_are_refused_by_name(tmp_path, kind):
    folder = index_folder(tmp_path / "other", {"_class_name": kind})
    expected = f"other' has the class {kind}; .* StableDiffusion3Pipeline alone: give a"
    with pytest.raises(ValueError, match=expected) as caught:
        check_drawable(folder)
    assert "\n" not in str(caught.value) and "such as emoji" in str(caught.value)


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("check", [check_drawable, load_pipeline])
def test_an_odd_class_name_is_no_pipeline(tmp_path, kind, check):
    folder = index_folder(tmp_path / "odd", {"_class_name": kind})
    with pytest.raises(ValueError, match="must name the pipeline's class as _class_name") as caught:
        check(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [{}, {"_diffusers_version": "1"}, [], "FluxPipeline", None, 3])
@pytest.mark.parametrize("check", [check_drawable, load_pipeline])
def test_an_index_that_names_nothing_is_no_pipeline(tmp_path, value, check):
    with pytest.raises(ValueError, match=r"model = .*odd'.*model_index.json must") as caught:
        check(index_folder(tmp_path / "odd", value))
    assert "\n" not in str(caught.value)


def test_our_own_kind_is_drawable(tiny_folder):
    check_drawable("emoji")
    check_drawable(str(tiny_folder))
    with pytest.raises(ValueError, match="model = 'emojis' is unknown"):
        check_drawable("emojis")


COMMANDS = {
    "generate": "generate koala --model {model} --output_dir {out}",
    "generate with a student": "generate koala --model {model} --student ota --output_dir {out}",
    "compare": "compare koala --model {model} --output_dir {out}",
    "evaluate": "evaluate --model {model} --json {out}/record.json --num_prompts 6",
    "report": "emoji report --model {model} --output_dir {out}",
    "distill": "distill --pretrained_model_name_or_path {model} --prompts {prompts} "
    "--output_dir {out} --max_train_steps 1",
}


@pytest.mark.parametrize("index", [{"_class_name": "FluxPipeline"}, {"_class_name": 3}])
@pytest.mark.parametrize("name", COMMANDS)
def test_commands_refuse_in_one_line_and_write_nothing(tmp_path, capsys, name, index):
    (tmp_path / "prompts.txt").write_text("a koala\n")
    model, out = index_folder(tmp_path / "other", index), tmp_path / "out"
    words = COMMANDS[name].format(model=model, out=out, prompts=tmp_path / "prompts.txt").split()
    assert main([*words, "--device", "cpu"]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("flowsteer: error: model = ") and printed.err.count("\n") == 1
    assert str(index["_class_name"]) in printed.err
    assert printed.out == "" and not out.exists()


@pytest.fixture(scope="module")
def other_folder(tiny_folder, tmp_path_factory):
    """A whole folder of another pipeline; its parts are SD3's."""
    folder = tmp_path_factory.mktemp("other") / "img2img"
    pipe = load_pipeline(str(tiny_folder), device="cpu", scheduler="stock")
    StableDiffusion3Img2ImgPipeline.from_pipe(pipe).save_pretrained(folder)
    return str(folder)


def test_other_pipelines_open_for_their_own_calls(other_folder):
    pipe = load_pipeline(other_folder, device="cpu")
    assert type(pipe) is StableDiffusion3Img2ImgPipeline
    assert type(pipe.scheduler) is RectifiedFlowMatchEulerDiscreteScheduler
    picture = Image.new("RGB", (128, 128), "red")
    drawn = pipe("a koala", image=picture, num_inference_steps=2, output_type="pt").images
    assert torch.isfinite(drawn).all()


def test_a_student_of_another_pipeline_is_refused_before_it_is_loaded(tmp_path, lora_student):
    folder = index_folder(tmp_path / "other", {"_class_name": "FluxPipeline"})
    with pytest.raises(ValueError, match="has the class FluxPipeline"):
        load_pipeline(folder, student=lora_student, device="cpu")


def test_what_draws_says_so_of_a_loaded_pipeline(other_folder, lora_student, tmp_path):
    pipe = load_pipeline(other_folder, device="cpu")
    config = DistillationConfig(output_dir=str(tmp_path / "run"), max_train_steps=1)
    for call in (
        lambda: generate(pipe, "a koala"),
        lambda: stream_pictures(pipe, "a koala"),
        lambda: encode(pipe, ["a koala"]),
        lambda: PipelineSet(pipe),
        lambda: with_student(pipe, lora_student),
        lambda: prepare(pipe, []),
        lambda: next(distill(pipe, PromptSource(("a koala",), 0), config)),
    ):
        with pytest.raises(ValueError, match="Img2ImgPipeline is no StableDiffusion3Pipeline, the"):
            call()
    assert not (tmp_path / "run").exists()
