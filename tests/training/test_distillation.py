"""`distill` on a tiny SD3 pipeline: what it writes, how it resumes, that it learns."""

import copy
import json
import math
from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from flowsteer.emoji.pipeline import build_pipeline
from flowsteer.flow import rectified_grid, rollout
from flowsteer.models import SD3Field, encode_prompts, fold_pipeline
from flowsteer.training.distillation import distill, load_checkpoint_student
from flowsteer.training.distillation_config import DistillationConfig
from flowsteer.training.networks import build_networks
from flowsteer.training.sources import Drawn, PromptSource

PROMPTS = PromptSource(("koala", "a pizza", "two foxes"), seed=0)


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
        "method": "ota",
        "max_train_steps": 4,
        "train_batch_size": 2,
        "rank": 4,
        "substeps": 1,
        "checkpointing_steps": 2,
        "lr_warmup_steps": 1,
    }
    return DistillationConfig(output_dir=str(folder), **(defaults | settings))


def run(teacher, cfg, stop_after=None, source=PROMPTS, encode=None):
    pipe = copy.deepcopy(teacher)
    reports = []
    for report in distill(pipe, source, cfg, guidance_scale=3.0, encode=encode):
        reports.append(report)
        if report.step == stop_after:
            break
    return pipe, reports


@pytest.mark.parametrize("rounds", [1, 2])
def test_the_teacher_carries_no_adapters(teacher, tmp_path, rounds):
    first = config(tmp_path / "first", method="reflow", max_train_steps=2, learning_rate=0.1)
    pipe, cfg = copy.deepcopy(teacher), first
    if rounds == 2:
        run(teacher, first)
        cfg = replace(first, student=str(tmp_path / "first" / "student"))
    networks = build_networks(pipe, cfg, Accelerator(cpu=True))
    names = [name for name, _ in networks.teacher.transformer.named_parameters()]
    assert names == [name for name, _ in teacher.transformer.named_parameters()]
    x, cond = torch.randn(2, 16, 16, 16), encode_prompts(pipe, ["koala", "a pizza"])
    taught, own = networks.teacher(x, torch.ones(2), cond), networks.student(x, torch.ones(2), cond)
    torch.testing.assert_close(taught, own, rtol=1e-4, atol=1e-5)
    changed = not torch.allclose(taught, SD3Field(teacher.transformer)(x, torch.ones(2), cond))
    assert changed is (rounds == 2)


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
    student, reports = run(teacher, cfg)
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
        ({"method": "reflow", "num_windows": 4}, "num_windows = 4: the method 'reflow' has 1"),
        ({"method": "perflow", "share_on_policy": 0.5}, "does not start windows from states"),
        ({"share_on_policy": -0.1}, "share_on_policy = -0.1"),
        ({"lambda_adv": math.nan}, "lambda_adv = nan"),
        ({"critic_learning_rate": 0.0}, "critic_learning_rate = 0.0"),
        ({"critic_depth": 0}, "critic_depth = 0"),
        ({"validation_steps": 0}, "validation_steps = 0"),
    ],
)
def test_bad_settings(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        config(tmp_path, **settings)


def test_bad_rank_writes_nothing(teacher, tmp_path):
    with pytest.raises(ValueError, match="rank = 0"):
        run(teacher, config(tmp_path / "out", rank=0))
    assert not (tmp_path / "out").exists()


class PictureSource:
    """Noise for pictures: enough for a method that wants some."""

    def __call__(self, numbers):
        generator = torch.Generator().manual_seed(numbers.start)
        pictures = torch.randn(len(numbers), 16, 16, 16, generator=generator)
        return Drawn(["koala"] * len(numbers), pictures)


@pytest.mark.parametrize(
    ("settings", "edges"),
    [
        ({"method": "reflow"}, [1, 0]),
        ({"method": "perflow", "adversarial": True}, [1, 0.9, 0.75, 0.5, 0]),
        ({"method": "perflow", "grid": "stock"}, [1, 0.8577, 0.6022, 0.0089, 0]),
        ({"method": "flowsteer", "num_windows": 2, "share_on_policy": 0.5}, [1, 0.75, 0]),
        ({"method": "flowsteer", "num_windows": 8, "critic_states": "rollout"}, None),
        ({"method": "ota", "solver": "multistep", "substeps": 2}, [1, 0.9, 0.75, 0.5, 0]),
        ({"method": "ota", "gradient_checkpointing": True}, [1, 0.9, 0.75, 0.5, 0]),
        ({"method": "ota", "offload_text_encoders": True}, [1, 0.9, 0.75, 0.5, 0]),
    ],
)
def test_every_method_and_option_makes_a_student(teacher, tmp_path, settings, edges):
    cfg = config(tmp_path, max_train_steps=2, **settings)
    _, reports = run(teacher, cfg, source=PictureSource(), encode=lambda pictures: pictures)
    info = json.loads((tmp_path / "student" / "flowsteer.json").read_text())
    assert edges is None or info["edges"] == pytest.approx(edges, abs=5e-5)
    assert len(info["edges"]) == cfg.windows + 1
    assert all(math.isfinite(report.loss) and report.grad_norm > 0 for report in reports)
    assert ("critic_loss" in reports[0].metrics) == cfg.uses_critic
    assert -1 <= reports[0].metrics["cosine"] <= 1


def test_gradient_checkpointing_changes_no_number(teacher, tmp_path):
    plain, _ = run(teacher, config(tmp_path / "plain"))
    frugal, _ = run(teacher, config(tmp_path / "frugal", gradient_checkpointing=True))
    expected = dict(plain.transformer.named_parameters())
    for name, parameter in frugal.transformer.named_parameters():
        torch.testing.assert_close(parameter, expected[name], rtol=1e-5, atol=1e-7)


def test_perflow_without_pictures_says_what_to_give(teacher, tmp_path):
    with pytest.raises(ValueError, match="give --train_data_dir, or use ota"):
        run(teacher, config(tmp_path / "out", method="perflow"))
    assert not (tmp_path / "out").exists()


def test_critic_resumes_bitwise(teacher, tmp_path):
    settings = {"method": "flowsteer", "num_windows": 2, "critic_learning_rate": 1e-2}
    run(teacher, config(tmp_path / "whole", **settings))
    run(teacher, config(tmp_path / "parts", **settings), stop_after=3)
    cfg = config(tmp_path / "parts", **settings, resume_from_checkpoint="latest")
    _, reports = run(teacher, cfg)
    assert [r.step for r in reports] == [3, 4]
    for file in ("model", "ema", "optimizer", "critic_model", "critic_optimizer"):
        one, two = (
            load_file(tmp_path / name / "checkpoint-4" / f"{file}.safetensors")
            for name in ("whole", "parts")
        )
        assert one.keys() == two.keys() and one
        assert all(tensor.equal(two[name]) for name, tensor in one.items()), file
    first = load_file(tmp_path / "whole" / "checkpoint-2" / "critic_model.safetensors")
    last = load_file(tmp_path / "whole" / "checkpoint-4" / "critic_model.safetensors")
    assert any(not tensor.equal(last[name]) for name, tensor in first.items())


def test_a_run_does_not_resume_from_another_kind_of_run(teacher, tmp_path):
    """Without settings, as in old checkpoints, the parameters' names and shapes still tell."""
    run(teacher, config(tmp_path))
    record = tmp_path / "checkpoint-4" / "checkpoint.json"
    values = json.loads(record.read_text())
    del values["settings"]
    record.write_text(json.dumps(values))
    for changes, file in (({"rank": 2}, "model"), ({"method": "flowsteer"}, "critic_model")):
        cfg = config(tmp_path, resume_from_checkpoint="latest", max_train_steps=6, **changes)
        with (
            pytest.warns(UserWarning, match="checkpoint-4 does not say its settings"),
            pytest.raises(ValueError, match=f"/{file}.safetensors holds other parameters"),
        ):
            run(teacher, cfg)


@pytest.mark.parametrize("rank", [4, None])
def test_student_of_a_checkpoint_is_the_student_that_was_saved(teacher, tmp_path, rank):
    cfg = config(tmp_path, rank=rank, learning_rate=1e-2)
    final, _ = run(teacher, cfg)
    loaded = copy.deepcopy(teacher)
    state = load_checkpoint_student(loaded, tmp_path / "checkpoint-4", cfg)
    assert state["samples"] == 8 and state["seconds"] > 0
    expected = dict(final.transformer.named_parameters())
    for name, parameter in loaded.transformer.named_parameters():
        assert torch.equal(parameter, expected[name]), name


def test_second_round_of_reflow_starts_from_the_first(teacher, tmp_path):
    """It teaches itself, unguided: with no step taken it is the first round's student."""
    first, _ = run(teacher, config(tmp_path / "1", method="reflow", learning_rate=1e-2))
    settings = {"method": "reflow", "student": str(tmp_path / "1" / "student")}
    second, _ = run(teacher, config(tmp_path / "2", learning_rate=1e-9, **settings))
    x, t, cond = torch.randn(2, 16, 16, 16), torch.ones(2), encode_prompts(teacher, ["koala", "x"])
    with torch.no_grad():
        expected = SD3Field(first.transformer)(x, t, cond)
        got = SD3Field(second.transformer)(x, t, cond)
        base = SD3Field(teacher.transformer)(x, t, cond)
    change = (expected - base).norm()
    assert change > 1e-3 * base.norm()
    assert (got - expected).norm() < 0.02 * change  # bf16 on disk
    info = json.loads((tmp_path / "2" / "student" / "flowsteer.json").read_text())
    assert info["guidance_range"] == [1, 1]
    assert info["settings"]["student"] == settings["student"]
    with pytest.raises(ValueError, match="give --rank 4"):
        run(teacher, config(tmp_path / "3", rank=8, **settings))
    with pytest.raises(ValueError, match=r"lora_alpha = 2: .* leave --lora_alpha out"):
        run(teacher, config(tmp_path / "3", lora_alpha=2.0, **settings))


def test_validation_measures_the_averaged_student(teacher, tmp_path):
    cfg = config(tmp_path, validation_steps=2, num_validation_images=3, report_to="tensorboard")
    _, reports = run(teacher, cfg)
    measured = {r.step: r.metrics.get("distance_to_teacher") for r in reports}
    assert [step for step, distance in measured.items() if distance is not None] == [2, 4]
    assert 0 < measured[4] < 2 and measured[2] != measured[4]
    picture = reports[-1].picture
    assert picture.shape == (3, 2 * 128, 3 * 128)
    assert picture.min() >= 0 and picture.max() <= 1


@pytest.mark.parametrize("part", ["the whole", "forward of blocks", "blocks"])
def test_a_compiled_teacher_teaches_the_same(teacher, tmp_path, part):
    compiled = copy.deepcopy(teacher)
    blocks = compiled.transformer.transformer_blocks
    if part == "the whole":
        compiled.transformer = torch.compile(compiled.transformer, backend="eager")
    for place, block in enumerate(blocks):
        if part == "blocks":
            blocks[place] = torch.compile(block, backend="eager")
        elif part == "forward of blocks":
            block.forward = torch.compile(block.forward, backend="eager")
    cfg = config(tmp_path / "plain", method="flowsteer", max_train_steps=2)
    _, expected = run(teacher, cfg)
    other = replace(cfg, output_dir=str(tmp_path / "compiled"))
    reports = list(distill(compiled, PROMPTS, other, guidance_scale=3.0))
    assert [report.loss for report in reports] == [report.loss for report in expected]
    plain, again = (
        load_file(tmp_path / name / "student" / "pytorch_lora_weights.safetensors")
        for name in ("plain", "compiled")
    )
    torch.testing.assert_close(again, plain, rtol=0, atol=0)
