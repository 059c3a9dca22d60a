"""`distill` on a tiny SD3 pipeline: what it writes, how it resumes, that it learns."""

import copy
import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file

from flowsteer.emoji.pipeline import build_pipeline
from flowsteer.flow import rectified_grid, rollout
from flowsteer.models import SD3Field, encode_prompts, fold_pipeline
from flowsteer.training.config import DistillationConfig
from flowsteer.training.distillation import PromptBatch, distill

PROMPTS = PromptBatch(("koala", "a pizza", "two foxes"), batch_size=2, seed=0)


@pytest.fixture(scope="module")
def teacher():
    pipe = fold_pipeline(build_pipeline("tiny", seed=3))
    torch.manual_seed(0)
    for parameter in pipe.transformer.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.2)
    return pipe


def config(folder, **settings):
    defaults = {
        "max_train_steps": 4,
        "train_batch_size": 2,
        "rank": 4,
        "substeps": 1,
        "checkpointing_steps": 2,
        "lr_warmup_steps": 1,
    }
    return DistillationConfig(output_dir=str(folder), **(defaults | settings))


def run(teacher, cfg, stop_after=None, prompts=PROMPTS):
    pipe = copy.deepcopy(teacher)
    reports = []
    for report in distill(pipe, prompts, cfg, guidance_scale=3.0):
        reports.append(report)
        if report.step == stop_after:
            break
    return pipe, reports


def test_lora_student_folder_describes_itself(teacher, tmp_path):
    run(teacher, config(tmp_path, guidance_min=2, guidance_max=4, lora_alpha=8))
    info = json.loads((tmp_path / "student" / "flowsteer.json").read_text())
    assert info["edges"] == pytest.approx([1, 0.9, 0.75, 0.5, 0])
    assert (info["method"], info["steps"], info["shift"]) == ("ota", 4, 3.0)
    assert info["guidance_range"] == [2, 4]
    assert (info["lora_rank"], info["lora_alpha"]) == (4, 8)
    weights = load_file(tmp_path / "student" / "pytorch_lora_weights.safetensors")
    assert {w.dtype for w in weights.values()} == {torch.bfloat16}
    assert all(name.startswith("transformer.") for name in weights)


def test_stock_diffusers_loads_the_lora_with_its_scale(teacher, tmp_path):
    """alpha = 2 * rank must survive the file: the loaded student equals the trained one."""
    student, _ = run(teacher, config(tmp_path, lora_alpha=8, learning_rate=1e-2))
    loaded = copy.deepcopy(teacher)
    loaded.load_lora_weights(str(tmp_path / "student"))
    x, t, cond = torch.randn(2, 16, 16, 16), torch.ones(2), encode_prompts(teacher, ["koala", "x"])
    with torch.no_grad():
        expected = SD3Field(student.transformer)(x, t, cond)
        got = SD3Field(loaded.transformer)(x, t, cond)
        base = SD3Field(teacher.transformer)(x, t, cond)
    change = (expected - base).norm()
    assert change > 1e-3 * base.norm()
    assert (got - expected).norm() < 0.02 * change  # bf16 on disk


def test_full_student(teacher, tmp_path):
    run(teacher, config(tmp_path, rank=None))
    assert (tmp_path / "student" / "transformer" / "config.json").is_file()
    assert json.loads((tmp_path / "student" / "flowsteer.json").read_text())["lora_rank"] is None


@pytest.mark.parametrize("rank", [4, None])
def test_resumed_run_is_bitwise_the_uninterrupted_one(teacher, tmp_path, rank):
    whole, _ = run(teacher, config(tmp_path / "whole", rank=rank))
    run(teacher, config(tmp_path / "parts", rank=rank), stop_after=3)
    cfg = config(tmp_path / "parts", rank=rank, resume_from_checkpoint="latest")
    resumed, reports = run(teacher, cfg)
    assert [r.step for r in reports] == [3, 4]
    expected = dict(whole.transformer.named_parameters())
    for name, parameter in resumed.transformer.named_parameters():
        assert torch.equal(parameter, expected[name]), name


def test_the_student_comes_closer_to_the_guided_teacher(teacher, tmp_path):
    """On fresh noise: four unguided calls after, against before, distilling."""
    settings = {"learning_rate": 1e-2, "rank": 8, "train_batch_size": 6, "substeps": 2}
    cfg = config(tmp_path, max_train_steps=40, **settings)
    prompts = dataclasses.replace(PROMPTS, batch_size=6)
    student, reports = run(teacher, cfg, prompts=prompts)
    noise = torch.randn(6, 16, 16, 16, generator=torch.Generator().manual_seed(9))
    texts = ["koala", "a pizza", "two foxes"] * 2
    target = teacher(
        texts,
        latents=noise,
        guidance_scale=3.0,
        num_inference_steps=8,
        sigmas=(torch.arange(8, 0, -1) / 8).tolist(),
        output_type="latent",
    ).images
    cond = encode_prompts(teacher, texts)

    def distance(pipe):
        with torch.no_grad():
            end = rollout(SD3Field(pipe.transformer), noise, rectified_grid(4, 3.0), cond).end
        return ((end - target).norm() / target.norm()).item()

    assert reports[-1].loss < 0.5 * reports[0].loss
    assert distance(student) < 0.8 * distance(teacher)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "magic"}, "method = 'magic' is unknown"),
        ({"num_windows": 0}, "num_windows = 0"),
        ({"substeps": 0}, "substeps = 0"),
        ({"guidance_min": 3.0}, "give both"),
        ({"guidance_min": 5.0, "guidance_max": 3.0}, "1 <= min <= max"),
        ({"share_at_hi": 1.5}, "share_at_hi = 1.5"),
    ],
)
def test_bad_settings(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        config(tmp_path, **settings)


def test_bad_rank_writes_nothing(teacher, tmp_path):
    with pytest.raises(ValueError, match="rank = 0"):
        run(teacher, config(tmp_path / "out", rank=0))
    assert not (tmp_path / "out").exists()
