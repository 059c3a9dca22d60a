"""Presets: measured flags in one table, which defaults, commands and the reproduction share."""

import json
from dataclasses import MISSING, fields

import pytest

from flowsteer.cli.distill import Distill
from flowsteer.cli.main import parse
from flowsteer.reproduce.presets import PRESETS as REPRODUCTIONS
from flowsteer.students import BUNDLED_STUDENTS
from flowsteer.training.distillation_config import DistillationConfig
from flowsteer.training.presets import PRESETS

MACHINE = ("mixed_precision", "compile", "logging_steps", "dataloader_num_workers")


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_a_valid_run_that_keeps_its_name(name):
    config = DistillationConfig.from_preset(name, output_dir="out", seed=3)
    assert (config.preset, config.seed) == (name, 3)
    assert PRESETS[name].flags.items() <= vars(config).items()


def test_the_defaults_are_the_measured_recipe():
    """Those of the bundled students, but for what belongs to the machine."""
    config = DistillationConfig()
    recipe = {k: v for k, v in PRESETS["gpu"].flags.items() if k not in MACHINE}
    assert recipe.items() <= vars(config).items()
    shipped = json.loads((BUNDLED_STUDENTS / "flowsteer" / "flowsteer.json").read_text())
    taught = shipped["settings"] | {
        "method": shipped["method"],
        "rank": shipped["lora_rank"],
        "max_train_steps": shipped["steps"],
    }
    del taught["critic_learning_rate"]  # its card tells why it is lower now
    assert taught.items() <= vars(config).items()
    assert list(config.guidance_range(4.0)) == shipped["guidance_range"]
    assert list(config.edges(3.0).edges) == pytest.approx(shipped["edges"])


def test_the_reproduction_is_the_same_recipe_for_fewer_steps():
    flags, ours = REPRODUCTIONS["full"].flags, PRESETS["gpu"].flags
    shared = ours.keys() & flags.keys()
    assert {name for name in shared if ours[name] != flags[name]} == {
        "max_train_steps",
        "ema_decay",
    }
    assert DistillationConfig().guidance_range(4.0) == (
        flags["guidance_min"],
        flags["guidance_max"],
    )


@pytest.mark.parametrize("name", PRESETS)
def test_flags_beside_a_preset_win_wherever_they_stand(name):
    flags = dict(PRESETS[name].flags)
    assert parse(["distill", "--preset", name]) == Distill.from_preset(name)
    for words in (
        ["--preset", name, "--learning_rate", "1e-5", "--max_train_steps", "7"],
        ["--learning_rate", "1e-5", f"--preset={name}", "--max_train_steps", "7"],
    ):
        typed = parse(["distill", *words])
        assert (typed.learning_rate, typed.max_train_steps, typed.preset) == (1e-5, 7, name)
        assert typed.train_batch_size == flags["train_batch_size"]


def test_what_a_preset_switches_on_can_be_switched_off():
    assert parse(["distill", "--preset", "gpu", "--no_compile"]).compile is False
    assert parse(["distill", "--preset", "gpu", "--compile"]).compile is True
    default = next(field for field in fields(Distill) if field.name == "compile").default
    assert default is False and default is not MISSING


@pytest.mark.parametrize("words", [["--preset", "desktop"], ["--preset=desktop"], ["--preset"]])
def test_unknown_presets_are_one_line(words):
    with pytest.raises(ValueError) as error:
        parse(["distill", *words])
    assert "--preset" in str(error.value) and "\n" not in str(error.value)


def test_a_preset_s_name_alone_is_refused_in_python():
    """It would stand in the student's folder without having had any effect."""
    with pytest.raises(ValueError, match=r"use from_preset\('gpu'\)"):
        DistillationConfig(preset="gpu")
    with pytest.raises(ValueError, match="preset = 'desktop' is unknown; use one of"):
        DistillationConfig.from_preset("desktop")


def test_without_a_number_the_teacher_takes_16_steps_on_its_path():
    assert [DistillationConfig(num_windows=k).substeps for k in (1, 2, 4, 8, 5)] == [16, 8, 4, 2, 4]
    assert DistillationConfig(method="reflow").substeps == 16
