"""What is typed around the commands: help, other names, forgotten quotes, pipes, completion."""

import shutil
import subprocess
import sys

import pytest

from flowsteer.cli.completion import completion
from flowsteer.cli.inputs import read_prompts
from flowsteer.cli.main import COMMANDS, main, parse
from flowsteer.evaluation.report import compare_lines
from flowsteer.measure.bootstrap import Interval, stratified_interval


@pytest.mark.parametrize("words", ["help", "--help", "-h", ""])
def test_help_lists_the_commands(words, capsys):
    assert main(words.split()) == 0
    out = capsys.readouterr().out
    assert all(command in out for command in COMMANDS)


@pytest.mark.parametrize("words", ["emoji", "emoji --help", "help emoji", "emoji help"])
def test_a_group_lists_its_own(words, capsys):
    assert main(words.split()) == 0
    out = capsys.readouterr().out
    assert "emoji teacher" in out and "distill" not in out


@pytest.mark.parametrize("command", ["distill", "emoji data"])
def test_help_of_a_command(command, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["help", *command.split()])
    assert caught.value.code == 0
    assert f"usage: flowsteer {command}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("typed", "same"),
    [("generate koala --steps 4", "generate koala --num_inference_steps 4"),
     ("generate koala --steps=4", "generate koala --num_inference_steps=4"),
     ("generate koala --grid=stock", "generate koala --scheduler stock"),
     ("generate koala --pretrained_model_name_or_path x", "generate koala --model x"),
     ("compare koala --pretrained-model-name-or-path x", "compare koala --model x"),
     ("schedule --num_inference_steps 8", "schedule --steps 8"),
     ("distill --model x", "distill --pretrained_model_name_or_path x")],
)  # fmt: skip
def test_one_thing_has_one_name_everywhere(typed, same):
    assert parse(typed.split()) == parse(same.split())


def test_words_without_quotes_are_warned_of(tiny_folder, tmp_path, capsys):
    where = ["--model", str(tiny_folder), "--output_dir", str(tmp_path), "--device", "cpu"]
    assert main(["generate", "a", "koala", "--steps", "1", *where]) == 0
    captured = capsys.readouterr()
    warned = [line for line in captured.err.splitlines() if "quote" in line]
    assert len(warned) == 1 and "2 prompts of one word each" in warned[0]
    assert "'a koala'" in warned[0] and len(captured.out.splitlines()) == 2
    assert main(["generate", "a koala", "a pizza", "--steps", "1", *where]) == 0
    assert "quote" not in capsys.readouterr().err


def test_comments_and_blank_lines_are_no_prompts(tmp_path):
    file = tmp_path / "p.txt"
    file.write_text("# my prompts\n\na koala\n  # more\n \na #1 pizza\n#last", encoding="utf-8")
    assert read_prompts(file) == ["a koala", "a #1 pizza"]
    file.write_text("# nothing\n\n", encoding="utf-8")
    with pytest.raises(ValueError, match="has no prompt"):
        read_prompts(file)


@pytest.mark.parametrize("number", [7, 11, 1199])
def test_unequal_shares_of_the_tasks_are_refused(number, capsys):
    assert main(["evaluate", "--num_prompts", str(number)]) == 2
    low = number - number % 6
    assert f"use {low} or {low + 6}" in capsys.readouterr().err
    assert main(["emoji", "report", "--num_prompts", "18"]) == 2
    assert "use 12 or 24" in capsys.readouterr().err


def test_an_interval_without_spread_is_not_available():
    lone = stratified_interval([[1.0]] * 6)
    assert lone.ends() == "n/a"
    assert stratified_interval([[1.0, 0.0]] * 6).ends().startswith("[0.")
    assert Interval(0.5, 0.25, 0.75).ends("{:.1f} to {:.2f}") == "0.2 to 0.75"
    against = {"share_of_teacher": 1.0, "distance_ratio": 0.5, "least_gain": vars(lone)}
    assert "undistilled row: +1.000 n/a" in compare_lines(against)


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize("words", ["schedule --steps 1000", "--help", "schedule --families"])
def test_a_reader_that_leaves_is_no_error(words):
    """`true` reads nothing and has gone before the first line is written."""
    command = f"{sys.executable} -W ignore -m flowsteer {words} | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("0\n", "")


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("typed", "offered"),
    [(["sch"], "schedule"), (["emoji", ""], "data"), (["emoji", "data", "--t"], "--tarballs"),
     (["generate", "--fr"], "--from"), (["distill", "--max_train_se"], "--max_train_seconds")],
    ids=" ".join,
)  # fmt: skip
def test_bash_completes_commands_and_flags(typed, offered):
    script = completion(["bash"], COMMANDS)
    words = " ".join(f"'{word}'" for word in ["flowsteer", *typed])
    ask = f"COMP_WORDS=({words}); COMP_CWORD={len(typed)}; _flowsteer; echo ${{COMPREPLY[@]}}"
    done = subprocess.run(["bash", "-c", f"{script}\n{ask}"], capture_output=True, text=True)
    assert offered in done.stdout.split() and done.stderr == ""


def test_every_shell_knows_every_flag(capsys):
    for shell in ("bash", "zsh", "fish"):
        assert main(["completion", shell]) == 0
        out = capsys.readouterr().out
        assert "guidance_scale" in out and "families" in out
    for bad in ([], ["cmd"], ["bash", "x"]):
        assert main(["completion", *bad]) == 2
        assert "use one of bash, zsh, fish" in capsys.readouterr().err
