"""What a checkpoint keeps of its run's settings, and what a resumed run may change."""

import copy
import json
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from flowsteer.emoji.pipeline import build_pipeline
from flowsteer.models import fold_pipeline
from flowsteer.training.distillation import STUDENT, distill, load_checkpoint_student
from flowsteer.training.distillation_config import DistillationConfig
from flowsteer.training.run_folder import check_run
from flowsteer.training.run_settings import RunSettings, fingerprint
from flowsteer.training.sources import PromptSource

PROMPTS = PromptSource(("koala", "a pizza", "two foxes"), seed=0)


def make_teacher(seed=3):
    pipe = fold_pipeline(build_pipeline("tiny", seed=seed))
    torch.manual_seed(seed)
    for parameter in pipe.transformer.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.2)
    return pipe


@pytest.fixture(scope="module")
def teacher():
    return make_teacher()


def run(teacher, cfg, source=PROMPTS, guidance_scale=3.0):
    return [r.step for r in distill(copy.deepcopy(teacher), source, cfg, guidance_scale)]


@pytest.fixture
def saved(teacher, tmp_path):
    """A run of two steps with the critic, and the config that goes on to four."""
    cfg = DistillationConfig(
        output_dir=str(tmp_path),
        method="flowsteer",
        max_train_steps=2,
        train_batch_size=2,
        rank=4,
        substeps=1,
        num_windows=2,
        lr_warmup_steps=0,
    )
    run(teacher, cfg)
    return replace(cfg, max_train_steps=4, resume_from_checkpoint="latest")


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("name", "value", "was"),
    [
        ("lora_alpha", 16.0, "4"),
        ("rank", 2, "4"),
        ("rank", None, "4"),
        ("method", "ota", "flowsteer"),
        ("num_windows", 4, "2"),
        ("grid", "stock", "rectified"),
        ("critic_depth", 1, "None"),
        ("critic_training", "frozen", "full"),
        ("critic_heads", "each", "last"),
        ("critic_logits", "pooled", "token"),
        ("critic_states", "rollout", "step"),
        ("adversarial_loss", "wasserstein", "hinge"),
        ("adversarial", False, "true"),
    ],
)
def test_what_changes_the_function_is_refused_by_name(teacher, saved, name, value, was):
    """By the flags alone, before anything is loaded, and by the run itself."""
    cfg = replace(saved, **{name: value})
    before_files = files(Path(cfg.output_dir))
    shown = "None" if value is None else json.dumps(value).strip('"')
    message = (
        rf"checkpoint-2 is of a run with other settings than .*{name} = {shown} \(it has {was}"
    )
    for attempt in (lambda: check_run(cfg, STUDENT), lambda: run(teacher, cfg)):
        with pytest.raises(ValueError, match=message):
            attempt()
    assert files(Path(cfg.output_dir)) == before_files


def test_another_precision_is_refused(saved):
    """By the flags; a second precision in one process is accelerate's to refuse."""
    with pytest.raises(ValueError, match=r"mixed_precision = bf16 \(it has no\)"):
        check_run(replace(saved, mixed_precision="bf16"), STUDENT)


def test_another_teacher_of_the_same_shape_is_refused(teacher, saved):
    with pytest.raises(ValueError, match=r"pretrained_model_name_or_path = emoji with weights \w+"):
        run(make_teacher(seed=4), saved)


def test_the_same_teacher_may_lie_elsewhere(teacher, saved):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert run(teacher, replace(saved, pretrained_model_name_or_path="moved")) == [3, 4]


@pytest.mark.parametrize("part", ["transformer", "text_encoder"])
def test_one_weight_more_makes_another_teacher(teacher, part):
    pipe = copy.deepcopy(teacher)
    before = fingerprint([pipe.transformer, pipe.text_encoder])
    assert before == fingerprint([teacher.transformer, teacher.text_encoder])
    with torch.no_grad():
        for parameter in getattr(pipe, part).parameters():
            parameter.mul_(1.01)
            break
    assert fingerprint([pipe.transformer, pipe.text_encoder]) != before


def test_another_shift_is_refused(teacher, saved):
    pipe = copy.deepcopy(teacher)
    pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, shift=1.0)
    with pytest.raises(ValueError, match=r"shift = 1.0 \(it has 3.0\)"):
        run(pipe, saved)


def test_another_dtype_is_refused(teacher, saved):
    pipe = copy.deepcopy(teacher)
    pipe.transformer.to(torch.bfloat16)
    with pytest.raises(ValueError, match=r"dtype = bfloat16 \(it has float32\)"):
        run(pipe, saved)


def test_another_student_to_start_from_is_refused(teacher, tmp_path):
    base = {"train_batch_size": 2, "rank": 4, "substeps": 1, "method": "reflow"}
    for name, seed in (("one", 0), ("two", 1)):
        out = str(tmp_path / name)
        rate = {"learning_rate": 0.1, "seed": seed}
        run(teacher, DistillationConfig(output_dir=out, max_train_steps=1, **base, **rate))
    cfg = DistillationConfig(
        output_dir=str(tmp_path / "out"),
        max_train_steps=1,
        student=str(tmp_path / "one" / "student"),
        **base,
    )
    run(teacher, cfg)
    cfg = replace(cfg, resume_from_checkpoint="latest", max_train_steps=2)
    other = str(tmp_path / "two" / "student")
    with pytest.raises(ValueError, match="student = .*two/student with weights"):
        run(teacher, replace(cfg, student=other))
    assert run(teacher, cfg) == [2]


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("seed", 7, r"seed = 7 \(was 0\)"),
        ("train_batch_size", 3, r"train_batch_size = 3 \(was 2\)"),
        ("substeps", 2, r"substeps = 2 \(was 1\)"),
        ("learning_rate", 1e-5, r"learning_rate = 1e-05 \(was "),
        ("solver", "heun", r"solver = heun \(was "),
        ("gradient_accumulation_steps", 2, r"gradient_accumulation_steps = 2 \(was 1\)"),
        ("share_on_policy", 0.5, r"share_on_policy = 0.5 \(was 0.0\)"),
        ("lambda_adv", 0.5, r"lambda_adv = 0.5 \(was "),
        ("max_train_steps", 2, None),
        ("checkpointing_steps", 1, None),
        ("logging_steps", 2, None),
    ],
)
def test_what_changes_the_path_is_said_in_one_line(teacher, saved, name, value, line):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        run(teacher, replace(saved, **{name: value}))
    said = [str(w.message) for w in caught if "other settings" in str(w.message)]
    assert len(said) == (line is not None)
    if line is not None:
        with pytest.warns(UserWarning, match=line):
            warnings.warn(said[0], stacklevel=1)


def test_guidance_and_prompts_are_compared_as_they_were_taught(teacher, saved):
    """Unset, it is an eighth around the teacher's own scale; prompts count by their text."""
    with pytest.warns(
        UserWarning, match=r"guidance_min = 4.375 \(was 2.625\), guidance_max = 5.62"
    ):
        run(teacher, saved, guidance_scale=5.0)
    longer = replace(saved, max_train_steps=5)
    with pytest.warns(UserWarning, match=r"prompts = 1 \(\w+\) \(was 3 \(\w+\)\)"):
        run(teacher, longer, PromptSource(("a frog",), seed=0), guidance_scale=5.0)


def test_old_checkpoints_say_that_they_do_not_know(teacher, saved):
    record = Path(saved.output_dir) / "checkpoint-2" / "checkpoint.json"
    values = json.loads(record.read_text())
    old = {key: values[key] for key in ("step", "sha256", "state")}
    record.write_text(json.dumps(old))
    with pytest.warns(UserWarning, match="checkpoint-2 does not say its settings"):
        assert run(teacher, saved) == [3, 4]


@pytest.mark.parametrize("settings", [[], {"path": {}}, {"function": 3, "path": {}}, "none"])
def test_settings_that_are_none_are_refused(teacher, saved, settings):
    record = Path(saved.output_dir) / "checkpoint-2" / "checkpoint.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"settings": settings}))
    with pytest.raises(ValueError, match="checkpoint-2/checkpoint.json: its settings have no 'fun"):
        run(teacher, saved)


def test_a_checkpoints_student_needs_the_runs_own_alpha(teacher, saved):
    folder = Path(saved.output_dir) / "checkpoint-2"
    with pytest.raises(ValueError, match=r"lora_alpha = 16.0 \(it has 4\)"):
        load_checkpoint_student(copy.deepcopy(teacher), folder, replace(saved, lora_alpha=16.0))


def test_what_a_flag_leaves_out_is_what_it_means():
    """An unset alpha is the rank, unset windows are the method's, and no critic has no flags."""
    short = DistillationConfig(rank=8, method="ota").__dict__
    long = DistillationConfig(
        rank=8, method="ota", lora_alpha=8, num_windows=4, adversarial=False
    ).__dict__
    one, other = (RunSettings.of(DistillationConfig(**values)) for values in (short, long))
    other.check_function(one.to_json(), "checkpoint-1")
    RunSettings.of(DistillationConfig(rank=8, method="ota", critic_heads="each")).check_function(
        one.to_json(), "checkpoint-1"
    )
