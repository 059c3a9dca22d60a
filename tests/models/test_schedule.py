"""Schedulers whose times the windows would not follow are refused before a student is taught."""

import json

import pytest
from diffusers import FlowMatchEulerDiscreteScheduler

from flowsteer.emoji.pipeline import build_pipeline
from flowsteer.evaluation.study import prepare
from flowsteer.models.schedule import FOLLOWED, check_schedule, check_schedule_of
from flowsteer.schedulers import RectifiedFlowMatchEulerDiscreteScheduler

OTHERS = {
    "use_dynamic_shifting": True,
    "use_karras_sigmas": True,
    "use_exponential_sigmas": True,
    "use_beta_sigmas": True,
    "shift_terminal": 0.02,
    "invert_sigmas": True,
    "stochastic_sampling": True,
    "num_train_timesteps": 500,
}


@pytest.mark.parametrize(
    "scheduler", [FlowMatchEulerDiscreteScheduler, RectifiedFlowMatchEulerDiscreteScheduler]
)
def test_a_constant_shift_is_followed(scheduler):
    check_schedule(scheduler(shift=3.0).config, "x")
    check_schedule({}, "x")
    check_schedule(dict.fromkeys(FOLLOWED, None) | {"num_train_timesteps": 1000}, "x")


@pytest.mark.parametrize(("name", "value"), OTHERS.items())
def test_other_times_are_refused_by_the_field_s_name(tmp_path, name, value):
    # as a file says it: the class itself takes beta sigmas only where scipy is installed
    config = {**FlowMatchEulerDiscreteScheduler(shift=3.0).config, name: value}
    message = f"model = 'x': its scheduler has {name} = {value}"
    with pytest.raises(ValueError, match=message):
        check_schedule(config, "x")
    file = tmp_path / "scheduler" / "scheduler_config.json"
    file.parent.mkdir()
    file.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        check_schedule_of(str(tmp_path), "x")


def test_every_refusal_is_tried():
    assert OTHERS.keys() == FOLLOWED.keys()


@pytest.mark.parametrize("shift", [0, -1.0, 1e9, "3", True, None, 10**400])
def test_the_shift_is_a_number(shift):
    with pytest.raises(ValueError, match=r"its scheduler has shift = .* must be a number above 0"):
        check_schedule({"shift": shift}, "x")


@pytest.mark.parametrize("text", ["[]", "{", '{"shift": "3"}'])
def test_a_broken_config_is_one_line(tmp_path, text):
    file = tmp_path / "scheduler" / "scheduler_config.json"
    file.parent.mkdir()
    file.write_text(text)
    with pytest.raises(ValueError) as error:
        check_schedule_of(str(tmp_path), "x")
    assert "\n" not in str(error.value)


def test_a_source_without_a_scheduler_s_file_passes(tmp_path):
    check_schedule_of(str(tmp_path), "x")
    check_schedule_of("some/hub-id", "some/hub-id")


def test_evaluation_refuses_too(tmp_path):
    pipe = build_pipeline("tiny", seed=0)
    pipe.scheduler = FlowMatchEulerDiscreteScheduler(use_karras_sigmas=True)
    with pytest.raises(ValueError, match="use_karras_sigmas = True"):
        prepare(pipe, [])


@pytest.mark.parametrize("command", ["distill", "evaluate", "emoji report"])
def test_commands_refuse_before_anything_is_loaded(tmp_path, lora_student, command, capsys):
    """The folder holds nothing but an index and the scheduler: there is nothing to load."""
    from flowsteer.cli import main

    model = tmp_path / "model"
    FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True).save_pretrained(model / "scheduler")
    (model / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusion3Pipeline"}))
    (tmp_path / "prompts.txt").write_text("a koala\n")
    out = ["--output_dir", str(tmp_path / "out")]
    words = {
        "distill": ["--pretrained_model_name_or_path", str(model), *out]
        + ["--prompts", str(tmp_path / "prompts.txt")],
        "evaluate": ["--model", str(model), "--student", str(lora_student)],
        "emoji report": ["--model", str(model), *out],
    }
    assert main([*command.split(), *words[command]]) == 2
    err = capsys.readouterr().err
    assert "use_dynamic_shifting = True" in err and err.count("\n") == 1
    assert not (tmp_path / "out").exists()
