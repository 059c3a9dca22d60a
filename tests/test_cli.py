import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

import flowsteer
from flowsteer.cli import main
from flowsteer.cli.main import COMMANDS, split_command, unboxed
from flowsteer.generation import Settings, generate
from flowsteer.loading import load_pipeline
from flowsteer.pictures import read_record
from flowsteer.students import bundled_students


@pytest.fixture
def flow(tiny_folder, tmp_path):
    """Runs a command on the tiny model, writing to tmp_path / "out"."""

    def run(command, *words):
        where = ["--model", str(tiny_folder), "--output_dir", str(tmp_path / "out")]
        return main([command, *where, "--device", "cpu", *map(str, words)])

    return run


def outputs(tmp_path):
    return sorted(path.name for path in (tmp_path / "out").rglob("*"))


def test_generate_writes_what_python_draws(flow, tiny_folder, tmp_path, capsys):
    code = flow("generate", "a koala", "a pizza", "--num_inference_steps", 4, "--seed", 9)
    assert code == 0
    names = [
        f"00{n}-{what}-tiny-teacher-4x2-g7-seed9.png"
        for n, what in enumerate(("a-koala", "a-pizza"))
    ]
    assert outputs(tmp_path) == names
    assert capsys.readouterr().out.split() == [str(tmp_path / "out" / name) for name in names]
    pipe = load_pipeline(str(tiny_folder), device="cpu")
    (picture,) = generate(pipe, "a pizza", 9, Settings(num_inference_steps=4))
    from PIL import Image

    with Image.open(tmp_path / "out" / names[1]) as image:
        assert image.tobytes() == picture.image.tobytes()
    record = read_record(tmp_path / "out" / names[1])
    assert (record["prompt"], record["seed"], record["model"]) == ("a pizza", 9, str(tiny_folder))


def test_generate_with_a_student_needs_no_other_flag(flow, lora_student, tmp_path):
    assert flow("generate", "a koala", "--student", lora_student) == 0
    (name,) = outputs(tmp_path)
    assert name == "000-a-koala-tiny-lora-4x1-seed0.png"
    assert read_record(tmp_path / "out" / name)["student"] == str(lora_student)


def test_several_pictures_a_prompt_take_consecutive_seeds(flow, tmp_path):
    words = ["--num_images_per_prompt", 3, "--seed", 4, "--num_inference_steps", 1]
    assert flow("generate", "koala", *words, "--batch_size", 2) == 0
    seeds = [read_record(tmp_path / "out" / name)["seed"] for name in outputs(tmp_path)]
    assert seeds == [4, 5, 6]


def test_prompts_come_from_a_file_too(flow, tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("\ufeffa koala\n\n  a pizza  \n", encoding="utf-8")
    assert flow("generate", "a rocket", "--prompts", file, "--num_inference_steps", 1) == 0
    prompts = [read_record(tmp_path / "out" / name)["prompt"] for name in outputs(tmp_path)]
    assert prompts == ["a rocket", "a koala", "a pizza"]


def test_settings_reach_the_picture(flow, tmp_path):
    words = ["--num_inference_steps", 2, "--guidance_scale", 2.5, "--scheduler", "stock"]
    assert flow("generate", "koala", *words) == 0
    (name,) = outputs(tmp_path)
    record = read_record(tmp_path / "out" / name)
    assert (record["guidance_scale"], record["scheduler"], record["nfe"]) == (2.5, "stock", 4)
    assert record["sigmas"][1] == pytest.approx(0.008929, abs=1e-5)


def test_a_grid_mismatch_is_refused_or_labelled(flow, lora_student, tmp_path, capsys):
    words = ["koala", "--student", lora_student, "--num_inference_steps", 3]
    assert flow("generate", *words) == 2
    error = capsys.readouterr().err
    assert "[1, 0.9, 0.75, 0.5, 0]" in error
    assert "allow_grid_mismatch" in error
    assert not (tmp_path / "out").exists()
    assert flow("generate", *words, "--allow_grid_mismatch") == 0
    (name,) = outputs(tmp_path)
    assert "grid-mismatch" in name
    assert read_record(tmp_path / "out" / name)["grid_mismatch"] is True


def test_compare_writes_one_sheet(flow, lora_student, tmp_path, capsys):
    assert flow("compare", "a koala", "--student", lora_student, "--seed", 2) == 0
    (name,) = outputs(tmp_path)
    assert name == "000-a-koala-tiny-compare-lora-seed2.png"
    record = read_record(tmp_path / "out" / name)
    assert [column["nfe"] for column in record["columns"]] == [56, 8, 8, 4, 4]
    assert record["columns"][4]["student"] == str(lora_student)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6
    assert lines[0].startswith("Teacher, 28 steps")
    assert "distance" in lines[4]


@pytest.mark.skipif("flowsteer" not in bundled_students(), reason="needs the shipped student")
def test_the_shipped_student_is_the_emoji_models_default(tmp_path):
    assert main(["generate", "a koala", "--device", "cpu", "--output_dir", str(tmp_path)]) == 0
    (path,) = tmp_path.iterdir()
    assert path.name == "000-a-koala-flowsteer-4x1-seed0.png"
    assert read_record(path)["sigmas"] == pytest.approx([1, 0.9, 0.75, 0.5, 0])


def test_schedule_prints_both_grids(capsys):
    assert main(["schedule", "--shift", "3", "--steps", "4"]) == 0
    out = capsys.readouterr().out
    for number in ("0.8577", "0.6022", "0.0089", "0.9000", "0.7500", "0.5000"):
        assert number in out


BAD_GENERATE = [
    (["koala", "--model", "emojis"], "model = 'emojis' is unknown; use emoji"),
    (["koala", "--student", "nobody"], "student = 'nobody' is unknown; use one of none"),
    ([""], "prompt = '' is empty"),
    (["x" * 5000], "5,000 characters, the limit is 1,000"),
    (["koala", "--num_inference_steps", "0"], "num_inference_steps = 0 must be a whole number"),
    (["koala", "--num_inference_steps", "3.5"], "num_inference_steps = 3.5 must be a whole"),
    (["koala", "--num_inference_steps", "four"], "num_inference_steps = 'four'"),
    (["koala", "--seed", "-1"], "seed = -1 must be a whole number from 0 to 4,294,967,295"),
    (["koala", "--seed", str(2**70)], "seed = 1180591620717411303424"),
    (["koala", "--seed", str(2**32 - 1), "--num_images_per_prompt", "2"], "seed = 4294967296"),
    (["koala", "--guidance_scale", "0"], "guidance_scale = 0"),
    (["koala", "--guidance_scale", "nan"], "guidance_scale = nan"),
    (["koala", "--device", "tpu9"], "device = 'tpu9'"),
    (["koala", "--dtype", "int8"], "dtype = 'int8'"),
    (["koala", "--prompts", "/no/such/file"], "/no/such/file is not there"),
    ([], "no prompt given"),
]


@pytest.mark.parametrize(("words", "message"), BAD_GENERATE)
def test_bad_input_is_one_line_code_2_and_nothing_written(flow, tmp_path, capsys, words, message):
    assert flow("generate", *words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("flowsteer: error: ")
    assert message in captured.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["koala", "--model", "emojis"], "model = 'emojis'"),
        (["koala", "--student", "nobody"], "student = 'nobody'"),
        (["x" * 5000], "5,000 characters"),
        ([""], "is empty"),
        (["koala", "--seed", "-1"], "seed = -1"),
    ],
)
def test_compare_refuses_the_same(flow, tmp_path, capsys, words, message):
    assert flow("compare", *words) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("steps", ["0", "-4", "3.5", "1001", "x"])
def test_schedule_refuses_bad_steps(capsys, steps):
    assert main(["schedule", "--steps", steps]) == 2
    assert "steps = " in capsys.readouterr().err


@pytest.mark.parametrize("shift", ["0", "-1", "nan", "inf", "x"])
def test_schedule_refuses_bad_shifts(capsys, shift):
    assert main(["schedule", "--shift", shift]) == 2
    assert "shift = " in capsys.readouterr().err


def test_a_folder_that_is_no_pipeline(flow, tmp_path, capsys):
    assert flow("generate", "koala", "--model", tmp_path) == 2
    assert "is no pipeline" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_file_in_the_way_of_the_output(tmp_path, capsys):
    file = tmp_path / "file"
    file.touch()
    assert main(["generate", "koala", "--output_dir", str(file / "deeper")]) == 2
    assert f"{file} is a file" in capsys.readouterr().err


def test_prompt_files_without_prompts(flow, tmp_path, capsys):
    file = tmp_path / "prompts.txt"
    file.write_text("\n \n")
    assert flow("generate", "--prompts", file) == 2
    assert "has no prompt" in capsys.readouterr().err
    file.write_bytes(b"\xff\xfe\x00")
    assert flow("generate", "--prompts", file) == 2
    assert "not readable as UTF-8" in capsys.readouterr().err
    file.write_text("koala\n" + "x" * 5000)
    assert flow("generate", "--prompts", file) == 2
    assert "5,000 characters" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_unknown_words_are_one_line_on_stderr(tmp_path, capsys):
    words = ["--student", "none", "--num_inference_steps", "1", "--output_dir", str(tmp_path)]
    assert main(["generate", "a blorfing koala", "--device", "cpu", *words]) == 0
    error = capsys.readouterr().err
    assert error == (
        "flowsteer: warning: the emoji model does not know 'blorfing' in 'a blorfing koala'\n"
    )


BAD_FLAGS = [
    ("generate koala --sed 1", "Unrecognized options: --sed, 1; see flowsteer generate --help"),
    ("generate koala --scheduler ddim", "'ddim'"),
    ("bench nothing", "'nothing'"),
    ("distill --max_train_steps 3.5", "'3.5'"),
    ("distill --max_train_steps 0", "max_train_steps = 0"),
    ("distill --seed -1", "seed = -1"),
    ("emoji data", "output_dir"),
]


@pytest.mark.parametrize(("words", "message"), BAD_FLAGS)
def test_unknown_flags_and_kinds_are_one_line_too(words, message, capsys):
    assert main(words.split()) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("flowsteer: error: ")
    assert message in error
    assert "─" not in error


@pytest.mark.parametrize(
    "framed",
    [
        "╭─ Value error ─╮\n│ one  │\n│ two. │\n│ ──── │\n│ help │\n╰──────╯\n",
        "\x1b[31m╭─ Value error ─╮\x1b[0m\n\x1b[31m│\x1b[0m one two \x1b[31m│\x1b[0m\n╰──────╯\n",
        " Value error \n ---------- \n  one   \n  two   \n  ------  \n  help\n",
        "one two",
    ],
)
def test_messages_come_out_of_their_frames(framed):
    assert unboxed(framed) == "one two"


def test_the_detectors_defaults_are_its_recipes():
    from flowsteer.cli.emoji import EmojiDetector
    from flowsteer.emoji.detector_recipe import detector_config

    recipe = asdict(detector_config("out", max_train_steps=1))
    command = asdict(EmojiDetector("out", max_train_steps=1))
    assert command == recipe | {"start": None}


@pytest.mark.parametrize("words", [["draw"], ["emoji", "nothing"], ["help", "draw"]])
def test_unknown_commands_list_what_there_is(words, capsys):
    assert main(words) == 2
    assert "use one of" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as caught:
        main([*command.split(), "--help"])
    assert caught.value.code == 0
    assert f"flowsteer {command}" in capsys.readouterr().out


def test_overview_and_version(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(command in out for command in COMMANDS)
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == flowsteer.__version__


def test_emoji_data_names_a_missing_package(tmp_path, capsys):
    words = ["--tarballs", str(tmp_path), "--output_dir", str(tmp_path / "art")]
    assert main(["emoji", "data", *words]) == 2
    assert "npm package @lobehub/fluent-emoji-3d is missing" in capsys.readouterr().err
    assert not (tmp_path / "art").exists()


def test_a_write_that_fails_is_one_line(flow, tmp_path, capsys):
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    tmp_path.chmod(0o500)
    assert flow("generate", "koala", "--num_inference_steps", 1) == 1
    assert capsys.readouterr().err.startswith("flowsteer: error: ")


def test_the_installed_command(tmp_path):
    """Once as a process: entry point, exit code, streams, and no heavy import before the check."""
    done = subprocess.run(
        [sys.executable, "-m", "flowsteer", "generate", "koala", "--seed", "-1"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "flowsteer: error: seed = -1 must be a whole number from 0 to 4,294,967,295;"
        " for example seed = 4\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_bench_writes_its_figures(tmp_path, capsys):
    file = tmp_path / "deep" / "bench.json"
    assert main(["bench", "import", "--repeats", "1", "--json", str(file)]) == 0
    assert "import flowsteer adds" in capsys.readouterr().out
    (report,) = json.loads(file.read_text())
    assert report["medians"]["import torch"] > 0
    assert main(["bench", "--repeats", "0"]) == 2


def test_the_readme_names_commands_that_exist():
    readme = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    lines = re.findall(r"^(?:\$ |\| `)flowsteer ([^`\n]*)", readme, re.MULTILINE)
    assert len(lines) >= 7
    for line in lines:
        split_command(shlex.split(line))
