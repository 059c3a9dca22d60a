"""A pipeline that a student's folder could not name is no teacher, and says what to do."""

import copy

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from peft import LoraConfig, inject_adapter_in_model

from flowsteer.loading import load_pipeline, with_student
from flowsteer.models.lora import add_lora, save_lora
from flowsteer.training.distillation import distill
from flowsteer.training.distillation_config import DistillationConfig
from flowsteer.training.sources import PromptSource


@pytest.fixture
def style(tiny, tmp_path):
    """A folder with a style LoRA for the tiny teacher."""
    transformer = copy.deepcopy(tiny.transformer)
    config = add_lora(transformer, 2, 4.0)
    generator = torch.Generator().manual_seed(5)
    for parameter in transformer.parameters():
        if parameter.requires_grad:
            parameter.data.normal_(0, 0.2, generator=generator)
    save_lora(transformer, config, tmp_path / "style")
    return tmp_path / "style"


def wear(pipe, style, *names):
    for name in names:
        pipe.load_lora_weights(
            str(style), weight_name="pytorch_lora_weights.safetensors", adapter_name=name
        )


def first_loss(pipe, folder, **settings):
    """The loss of one step, which the teacher decides."""
    flags = {"method": "ota", "max_train_steps": 1, "train_batch_size": 2, "rank": 4, "substeps": 1}
    config = DistillationConfig(str(folder), **(flags | settings))
    (report,) = distill(pipe, PromptSource(("a koala",), 0), config, 4.0)
    return report.loss


ACTIONS = {
    "active": lambda pipe: None,
    "scaled": lambda pipe: pipe.set_adapters(["one"], [0.5]),
    "disabled": lambda pipe: pipe.disable_lora(),
    "fused, not unloaded": lambda pipe: pipe.fuse_lora(components=["transformer"]),
}


@pytest.mark.parametrize("method", ["ota", "flowsteer"])
@pytest.mark.parametrize("state", ACTIONS)
def test_adapters_on_the_teacher_are_refused(tiny, style, tmp_path, method, state):
    wear(tiny, style, "one")
    ACTIONS[state](tiny)
    with pytest.raises(ValueError, match="the teacher's transformer carries the adapter one,"):
        first_loss(tiny, tmp_path / "out", method=method)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_two_adapters_are_both_named(tiny, style, tmp_path, dtype):
    tiny.to(dtype=dtype)
    wear(tiny, style, "one", "two")
    with pytest.raises(ValueError, match="carries the adapter one, two"):
        first_loss(tiny, tmp_path / "out", rank=None)


def test_adapters_on_a_text_encoder_are_refused(tiny, tmp_path):
    config = LoraConfig(target_modules=["q_proj"])
    inject_adapter_in_model(config, tiny.text_encoder, adapter_name="words")
    with pytest.raises(ValueError, match="the teacher's text_encoder carries the adapter words"):
        first_loss(tiny, tmp_path / "out")


def test_what_the_refusal_advises_teaches_the_style(tiny, tiny_folder, style, tmp_path):
    """Merged, unloaded and saved: the folder's student is taught as the merged pipeline's."""
    plain = first_loss(load_pipeline(str(tiny_folder), device="cpu"), tmp_path / "plain")
    wear(tiny, style, "one")
    tiny.fuse_lora(components=["transformer"])
    tiny.unload_lora_weights()
    tiny.save_pretrained(tmp_path / "styled")
    merged = first_loss(tiny, tmp_path / "merged")
    loaded = load_pipeline(str(tmp_path / "styled"), device="cpu")
    assert first_loss(loaded, tmp_path / "loaded") == pytest.approx(merged, rel=1e-5)
    assert abs(merged - plain) > 1e-3 * plain


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_student_is_no_teacher(tiny, lora_student, tmp_path, dtype):
    tiny.to(dtype=dtype)
    with pytest.raises(ValueError, match=r"is the student .*, not a teacher"):
        first_loss(with_student(tiny, lora_student), tmp_path / "out")


def test_the_student_of_a_run_is_no_teacher_of_the_next(tiny, tmp_path):
    first_loss(tiny, tmp_path / "one")
    with pytest.raises(ValueError, match="carries the adapter default"):
        first_loss(tiny, tmp_path / "two")


@pytest.mark.parametrize("rank", [4, None])
def test_float16_is_refused_and_bfloat16_taught(tiny, tmp_path, rank):
    half = copy.deepcopy(tiny).to(dtype=torch.float16)
    with pytest.raises(ValueError, match=r"in float16, whose gradients vanish .* bfloat16"):
        first_loss(half, tmp_path / "half", rank=rank)
    exact = first_loss(copy.deepcopy(tiny), tmp_path / "exact", rank=rank)
    tiny.to(dtype=torch.bfloat16)
    assert first_loss(tiny, tmp_path / "rounded", rank=rank) == pytest.approx(exact, rel=0.05)


def test_times_that_windows_do_not_follow_are_refused(tiny, tmp_path):
    tiny.scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    with pytest.raises(ValueError, match="use_dynamic_shifting = True"):
        first_loss(tiny, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_compiling_without_a_gpu_is_refused(tiny, tmp_path):
    with pytest.raises(ValueError, match="compile = True needs a CUDA GPU"):
        first_loss(tiny, tmp_path / "out", compile=True)


def test_a_lora_s_rate_for_all_weights_is_said(tiny, tmp_path):
    with pytest.warns(UserWarning, match=r"learning_rate = 0.004 is one for a LoRA; .* 0.0003 or"):
        first_loss(tiny, tmp_path / "out", rank=None)
