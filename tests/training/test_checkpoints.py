"""Checkpoints are whole or absent."""

import hashlib
import json
import math
import os
import shutil
import subprocess
import sys
import warnings

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file

from flowsteer.training import (
    TrainingConfig,
    latest_checkpoint,
    load_checkpoint,
    save_checkpoint,
    train,
)


def tensors(value):
    return {"model": {"w": torch.full((3,), value)}, "optimizer": {"m": torch.zeros(2, 2)}}


def test_round_trip(tmp_path):
    folder = save_checkpoint(tmp_path, 7, tensors(1.5), {"seconds": 2.5})
    step, loaded, state = load_checkpoint(folder)
    assert (step, state) == (7, {"seconds": 2.5})
    assert torch.equal(loaded["model"]["w"], torch.full((3,), 1.5))
    assert loaded["optimizer"]["m"].shape == (2, 2)


def test_only_the_newest_are_kept(tmp_path):
    for step in (5, 10, 100):
        save_checkpoint(tmp_path, step, tensors(step), {}, total_limit=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-100"]
    assert latest_checkpoint(tmp_path).name == "checkpoint-100"


def test_a_failed_write_leaves_nothing(tmp_path):
    save_checkpoint(tmp_path, 1, tensors(1.0), {})
    with pytest.raises(TypeError):
        save_checkpoint(tmp_path, 2, tensors(2.0), {"no JSON": object()})
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint-1"]


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_damaged_checkpoints_are_passed_over(tmp_path, damage):
    good = save_checkpoint(tmp_path, 1, tensors(1.0), {})
    bad = save_checkpoint(tmp_path, 2, tensors(2.0), {}) / "model.safetensors"
    content = bytearray(bad.read_bytes())
    if damage == "remove":
        bad.unlink()
    else:
        content[-1] ^= 1
        bad.write_bytes(content if damage == "flip" else content[:-4])
    with pytest.warns(UserWarning, match="skipped a damaged checkpoint"):
        assert latest_checkpoint(tmp_path) == good


def test_no_checkpoint(tmp_path):
    assert latest_checkpoint(tmp_path) is None
    assert latest_checkpoint(tmp_path / "absent") is None
    with pytest.raises(ValueError, match="no complete checkpoint"):
        load_checkpoint(tmp_path)


def forge(folder, file, change):
    """Rewrite a file of a checkpoint so that its checksum holds."""
    if file == "checkpoint.json":
        record = json.loads((folder / file).read_text())
        change(record)
        (folder / file).write_text(json.dumps(record))
        return
    loaded = load_file(folder / file)
    change(loaded)
    save_file(loaded, folder / file)
    record = json.loads((folder / "checkpoint.json").read_text())
    record["sha256"][file] = hashlib.sha256((folder / file).read_bytes()).hexdigest()
    (folder / "checkpoint.json").write_text(json.dumps(record))


def set_to(name, value):
    def change(values):
        values[name] = value

    return change


def resume(folder):
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)

    def losses(step, micro_step):
        yield model(torch.ones(1, 3)).square().mean()

    cfg = TrainingConfig(
        str(folder), max_train_steps=3, checkpointing_steps=2, resume_from_checkpoint="latest"
    )
    return list(train(model, losses, cfg, Accelerator(cpu=True)))


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("ema.safetensors", set_to("weight", torch.full((2, 3), math.nan)), "not finite"),
        ("ema.safetensors", set_to("weight", torch.zeros(3, 2)), "other parameters .*weight"),
        ("ema.safetensors", set_to("more", torch.zeros(2)), "other parameters .*more"),
        ("ema.safetensors", lambda t: t.pop("bias"), "other parameters .*bias"),
        ("model.safetensors", set_to("bias", torch.zeros(2).double()), "other parameters"),
        ("model.safetensors", set_to("bias", torch.tensor([0.0, math.inf])), "not finite"),
        ("optimizer.safetensors", set_to("weight.exp_avg", torch.zeros(4)), "other parameters"),
        ("optimizer.safetensors", set_to("weight.exp_avg", torch.zeros(2, 3).half()), "other par"),
        ("optimizer.safetensors", lambda t: t.pop("weight.exp_avg_sq"), "other parameters"),
        ("optimizer.safetensors", lambda t: t.pop("weight.exp_avg"), "other parameters"),
        ("optimizer.safetensors", set_to("bias.exp_avg_sq", -torch.ones(2)), "below 0"),
        ("optimizer.safetensors", set_to("bias.exp_avg", torch.full((2,), math.nan)), "not finit"),
        ("checkpoint.json", set_to("step", 7), "step = 7 is not the 2 of the folder's name"),
        ("checkpoint.json", set_to("step", -2), "must be counts"),
        ("checkpoint.json", set_to("step", True), "must be counts"),
        ("checkpoint.json", set_to("step", "2"), "must be counts"),
        ("checkpoint.json", set_to("order", 1.5), "must be counts"),
        ("checkpoint.json", set_to("state", {"seconds": -1.0}), "seconds = -1.0 must lie in"),
        ("checkpoint.json", set_to("state", {"seconds": math.nan}), "NaN"),
        ("checkpoint.json", set_to("state", {"seconds": "9"}), "seconds = '9' must lie in"),
        ("checkpoint.json", set_to("state", {"seconds": 10**30}), "seconds = 1000.* must lie in"),
        ("checkpoint.json", set_to("state", {}), "says no seconds"),
        ("checkpoint.json", set_to("state", []), "must be objects"),
        ("checkpoint.json", set_to("sha256", {"../x.safetensors": "0"}), "is no file of a check"),
        ("checkpoint.json", set_to("sha256", {}), "other parameters"),
        ("checkpoint.json", set_to("run", 3), "run must be text"),
        ("checkpoint.json", lambda record: record.clear(), "missing"),
    ],
)
def test_right_checksums_and_wrong_contents_are_refused_by_file(tmp_path, file, change, message):
    assert len(resume(tmp_path)) == 3
    for path in tmp_path.iterdir():
        if path.name != "checkpoint-2":
            shutil.rmtree(path)
    forge(tmp_path / "checkpoint-2", file, change)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        with pytest.raises(ValueError, match=message) as caught:
            resume(tmp_path)
    assert "checkpoint-2" in str(caught.value) and "\n" not in str(caught.value)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("content", [b"[" * 100_000, b"\xff", b"[]", b"3", b"", b'{"step": 1' * 2])
def test_records_that_are_none(tmp_path, content):
    folder = save_checkpoint(tmp_path, 1, tensors(1.0), {"seconds": 1.0})
    (folder / "checkpoint.json").write_bytes(content)
    with pytest.raises(ValueError, match="checkpoint-1 is no complete checkpoint"):
        load_checkpoint(folder)


@pytest.mark.parametrize("file", ["checkpoint.json", "model.safetensors"])
def test_a_pipe_in_place_of_a_file_does_not_hang(tmp_path, file):
    folder = save_checkpoint(tmp_path, 1, tensors(1.0), {"seconds": 1.0})
    (folder / file).unlink()
    os.mkfifo(folder / file)
    with pytest.raises(ValueError, match="named pipe"):
        load_checkpoint(folder)


def test_the_last_written_is_the_latest_and_the_last_to_go(tmp_path):
    """A run that went back to an older checkpoint writes lower steps later."""
    for step in (10, 20, 5, 7):
        save_checkpoint(tmp_path, step, tensors(1.0), {}, total_limit=3)
    assert latest_checkpoint(tmp_path).name == "checkpoint-7"
    # ahead of step 7 lay 10 and 20; the one written first has gone
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "checkpoint-20",
        "checkpoint-5",
        "checkpoint-7",
    ]
    save_checkpoint(tmp_path, 20, tensors(2.0), {}, total_limit=3)
    assert latest_checkpoint(tmp_path).name == "checkpoint-20"
    assert load_checkpoint(tmp_path / "checkpoint-20")[1]["model"]["w"].unique() == 2


LIMITED = """
import resource, signal, sys, torch
from flowsteer.training import save_checkpoint

small = {"model": {"w": torch.zeros(10)}}
save_checkpoint(sys.argv[1], 1, small, {})
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    save_checkpoint(sys.argv[1], 2, {"model": {"w": torch.zeros(100_000)}}, {})
except OSError as error:
    print(error)
"""


def test_a_file_that_the_system_does_not_let_grow(tmp_path):
    """The real thing: safetensors' own error, nothing half-written, the older one whole."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True, check=True
    )
    (line,) = done.stdout.splitlines()
    assert "checkpoint-2 could not be written" in line and line.endswith("checkpoint-1")
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-1"]
    assert latest_checkpoint(tmp_path).name == "checkpoint-1"
