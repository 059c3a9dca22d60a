"""Ctrl-C and SIGTERM: the step in hand is finished and saved, and no step is lost."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest
from safetensors.torch import load_file

from flowsteer.training import latest_checkpoint
from flowsteer.training.interruption import caught_signals, put_off, received
from flowsteer.training.log import read_log

STEPS = 12
FILES = ("model", "ema", "optimizer")


@pytest.fixture
def start(tiny_folder, tmp_path):
    """Starts `flowsteer distill` on the tiny model as a process of its own."""
    (tmp_path / "prompts.txt").write_text("a koala\ntwo foxes\n")
    processes = []

    def run(folder, *words, module=("-m", "flowsteer")):
        flags = (
            f"--pretrained_model_name_or_path {tiny_folder} --prompts {tmp_path}/prompts.txt"
            f" --output_dir {folder} --train_batch_size 2 --rank 2 --substeps 1 --device cpu"
            f" --lr_warmup_steps 0 --max_train_steps {STEPS} --checkpointing_steps 100"
        ).split()
        process = subprocess.Popen(
            [sys.executable, *module, "distill", *flags, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        processes.append(process)
        return process

    yield run
    for process in processes:
        if process.poll() is None:
            process.kill()
            process.wait()


def wait_for_steps(folder, count, process):
    """Wait until the log has so many rows."""
    while len(read_log(folder)) < count:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)


def same(one, other, name):
    first, second = (load_file(place / f"{name}.safetensors") for place in (one, other))
    assert first.keys() == second.keys() and first
    return all(tensor.equal(second[key]) for key, tensor in first.items())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "words"),
    [
        (signal.SIGINT, ()),
        pytest.param(signal.SIGTERM, ("--logging_steps", "5"), marks=pytest.mark.soak),
        (signal.SIGTERM, ("--dataloader_num_workers", "1")),
    ],
)
def test_a_signal_saves_the_step_and_latest_goes_on_bit_for_bit(start, tmp_path, number, words):
    """Sent to the whole process group, as a terminal and a batch system do."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    process = start(cut, *words)
    wait_for_steps(cut, 1, process)
    os.killpg(process.pid, number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number, err
    (line,) = [line for line in err.replace("\r", "\n").splitlines() if "flowsteer:" in line]
    found = re.fullmatch(
        r"flowsteer: error: stopped after step (\d+), saved in (.*); go on with"
        r" --resume_from_checkpoint latest",
        line,
    )
    assert found, line
    step = int(found[1])
    assert found[2] == str(cut / f"checkpoint-{step}") and 1 <= step < STEPS
    assert read_log(cut)[-1]["step"] == step
    assert sorted(os.listdir(cut)) == [f"checkpoint-{step}", "log.jsonl"]
    resumed = start(cut, *words, "--resume_from_checkpoint", "latest")
    assert resumed.wait(timeout=60) == 0
    assert start(whole, *words).wait(timeout=60) == 0
    for name in FILES:
        last = f"checkpoint-{STEPS}"
        assert same(whole / last, cut / last, name), name
    assert [row["step"] for row in read_log(cut)][-1] == STEPS


SLOW_STEP = """
import sys, time
import flowsteer.training.loop as loop

own = loop.Run.step
def slow(self, step, pace):
    own(self, step, pace)
    if step >= 1:
        time.sleep(30)
loop.Run.step = slow
sys.argv[0] = "flowsteer"
from flowsteer.cli import main
sys.exit(main())
"""


@pytest.mark.slow
def test_a_second_ctrl_c_ends_at_once(start, tmp_path):
    """In a step that lasts half a minute."""
    folder = tmp_path / "out"
    process = start(folder, module=("-c", SLOW_STEP))
    wait_for_steps(folder, 1, process)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 130
    assert "once more ends at once" in err and err.strip().endswith("error: interrupted")
    assert latest_checkpoint(folder) is None


@pytest.mark.slow
def test_before_the_first_step_a_signal_ends_at_once(start, tmp_path):
    process = start(tmp_path / "out")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode in (-signal.SIGTERM, 128 + signal.SIGTERM)
    assert not (tmp_path / "out").exists()


def test_signals_are_put_off_only_while_there_is_a_run_to_save():
    with caught_signals():
        with put_off():
            signal.raise_signal(signal.SIGINT)
            assert received() == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert received() is None
    with put_off(), pytest.raises(KeyboardInterrupt):  # a notebook: no command catches signals
        signal.raise_signal(signal.SIGINT)


def test_the_second_of_two_signals_does_what_it_always_did():
    with caught_signals(), put_off():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
