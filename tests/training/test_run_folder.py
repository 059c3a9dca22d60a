"""A folder holds one run: who may start in it, go on in it, and from which checkpoint."""

import json
import os
import subprocess
import sys
import warnings

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import nn

from flowsteer.training import TrainingConfig, latest_checkpoint, train
from flowsteer.training.data import seeded_generator
from flowsteer.training.folder_lock import LOCK_FILE, FolderLock
from flowsteer.training.results import Result, ResultFolder
from flowsteer.training.run_folder import FreshStart, check_run

RESULT = ResultFolder("model", "model.json", ("part-*",))


def network():
    torch.manual_seed(0)
    return nn.Linear(3, 2)


def write(folder, steps):
    (folder / "model.json").write_text(json.dumps(steps))
    (folder / "part-1").write_text("x")


def run(folder, stop_after=None, seed=0, **settings):
    """Reports of a run whose samples depend on its seed."""
    model = network()

    def losses(step, micro_step):
        x = torch.randn(8, 3, generator=seeded_generator("cpu", seed, step, micro_step))
        yield (model(x) - x[:, :2]).square().mean()

    defaults = {"max_train_steps": 6, "checkpointing_steps": 3, "learning_rate": 1e-2}
    cfg = TrainingConfig(output_dir=str(folder), seed=seed, **(defaults | settings))
    reports = []
    result = Result(RESULT, write)
    for report in train(model, losses, cfg, Accelerator(cpu=True), result=result):
        reports.append(report)
        if report.step == stop_after:
            break
    return model, [report.step for report in reports]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def content(folder):
    """Every file below a folder."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_second_run_in_the_folder_is_refused_and_touches_nothing(tmp_path):
    run(tmp_path)
    before = content(tmp_path)
    message = r"holds a run already \(checkpoint-6, model\): go on with --resume_from_checkpoint"
    with pytest.raises(ValueError, match=message):
        run(tmp_path, seed=7, max_train_steps=3)
    assert content(tmp_path) == before


@pytest.mark.parametrize("left", ["model", "log.jsonl", "logs"])
def test_what_a_run_left_refuses_too(tmp_path, left):
    run(tmp_path / "first")
    (tmp_path / "second").mkdir()
    if left == "model":
        (tmp_path / "first" / "model").rename(tmp_path / "second" / "model")
    elif left == "logs":
        (tmp_path / "second" / "logs").mkdir()
    else:
        (tmp_path / "second" / "log.jsonl").write_text("")
    with pytest.raises(ValueError, match=rf"holds a run already \({left}\): choose another"):
        run(tmp_path / "second")
    assert names(tmp_path / "second") == [left]


def test_files_of_the_user_beside_a_run_stay(tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")
    (tmp_path / ".checkpoint-mine").mkdir()
    (tmp_path / "checkpoint-old.zip").write_text("mine")
    run(tmp_path, checkpoints_total_limit=1)
    mine = [".checkpoint-mine", "checkpoint-old.zip", "notes"]
    assert names(tmp_path) == sorted([*mine, "checkpoint-6", "model"])
    assert (tmp_path / "notes" / "a.txt").read_text() == "mine"


@pytest.mark.parametrize("kind", ["file", "link", "folder", "extra", "link inside"])
def test_a_result_that_is_not_ours_is_refused_before_training(tmp_path, kind):
    """Fresh or resumed, and what is there is as it was."""
    out, mine = tmp_path / "out", tmp_path / "mine"
    run(out)
    mine.mkdir()
    (mine / "precious.txt").write_text("precious")
    place = out / "model"
    if kind in ("extra", "link inside"):
        name = "precious.txt" if kind == "extra" else "part-2"
        (place / name).symlink_to(mine) if "link" in kind else (place / name).write_text("precious")
    else:
        for path in place.iterdir():
            path.unlink()
        place.rmdir()
        if kind == "file":
            place.write_text("precious")
        elif kind == "link":
            place.symlink_to(mine)
        else:
            place.mkdir()
            (place / "precious.txt").write_text("precious")
    before = content(tmp_path)
    for settings in ({"resume_from_checkpoint": "latest", "max_train_steps": 9}, {}):
        with pytest.raises(ValueError, match="move it away, or choose another|holds a run already"):
            run(out, **settings)
    assert content(tmp_path) == before and place.is_symlink() == (kind == "link")


def test_what_comes_in_the_way_of_the_result_while_it_trains_stays(tmp_path):
    def steps():
        model = network()
        cfg = TrainingConfig(output_dir=str(tmp_path), max_train_steps=2)
        return train(
            model,
            lambda step, micro: iter([model(torch.ones(1, 3)).square().mean()]),
            cfg,
            Accelerator(cpu=True),
            result=Result(RESULT, write),
        )

    with pytest.raises(ValueError, match="no model.json.*move it away"):
        for _ in steps():
            (tmp_path / "model").mkdir(exist_ok=True)
            (tmp_path / "model" / "precious.txt").write_text("precious")
    assert (tmp_path / "model" / "precious.txt").read_text() == "precious"
    assert latest_checkpoint(tmp_path).name == "checkpoint-2"


@pytest.mark.parametrize("kind", ["foreign", "file", "link"])
def test_a_checkpoints_name_on_something_else_is_refused(tmp_path, kind):
    out = tmp_path / "out"
    run(out, max_train_steps=3)
    place = out / "checkpoint-6"
    if kind == "foreign":
        place.mkdir()
        (place / "trainer_state.json").write_text("{}")
    elif kind == "file":
        place.write_text("mine")
    else:
        place.symlink_to(tmp_path)
    before = content(tmp_path)
    with pytest.raises(ValueError, match="checkpoint-6 is in the way and no checkpoint of flowst"):
        run(out, resume_from_checkpoint="latest")
    assert content(tmp_path) == before


def test_two_runs_at_once_and_the_second_refuses(tmp_path):
    """In one process, and from another one; when the first is over, the folder is free."""
    first = TrainingConfig(output_dir=str(tmp_path), max_train_steps=2)
    model = network()
    reports = train(
        model,
        lambda step, micro: iter([model(torch.ones(1, 3)).square().mean()]),
        first,
        Accelerator(cpu=True),
    )
    next(reports)
    resumed = TrainingConfig(
        output_dir=str(tmp_path), max_train_steps=2, resume_from_checkpoint="latest"
    )
    for attempt in (lambda: run(tmp_path), lambda: check_run(resumed, RESULT)):
        with pytest.raises(ValueError, match=rf"in use by another run \(process {os.getpid()}\)"):
            attempt()
    code = f"""if True:
        from pathlib import Path
        from flowsteer.training.folder_lock import FolderLock
        FolderLock(Path({str(tmp_path)!r})).acquire()"""
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert other.returncode != 0 and "in use by another run" in other.stderr
    reports.close()
    assert names(tmp_path) == []
    run(tmp_path)
    assert LOCK_FILE not in names(tmp_path)


def test_the_lock_ends_with_its_process_however_that_ends(tmp_path):
    """Its file stays when a process is killed, and so may data workers for a while."""
    code = f"""if True:
        import os, signal, sys, time
        from pathlib import Path
        from flowsteer.training.folder_lock import FolderLock
        FolderLock(Path({str(tmp_path)!r})).acquire()
        if os.fork() == 0:
            time.sleep(60)
        print("locked", flush=True)
        time.sleep(60)"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        process.stdout.readline()
        with pytest.raises(ValueError, match="in use by another run"):
            FolderLock(tmp_path).acquire()
        process.kill()
        process.wait()
        assert names(tmp_path) == [LOCK_FILE]
        lock = FolderLock(tmp_path)
        lock.acquire()
        lock.release()
        assert names(tmp_path) == []
    finally:
        os.killpg(process.pid, 9)


def test_without_locks_a_line_says_so(tmp_path, monkeypatch):
    def unsupported(descriptor, operation):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", unsupported)
    with pytest.warns(UserWarning, match="cannot be locked .* no other run writes there"):
        run(tmp_path)
    assert names(tmp_path) == ["checkpoint-3", "checkpoint-6", "model"]


def test_a_checkpoint_is_named_by_name_path_or_latest(tmp_path, monkeypatch):
    run(tmp_path / "out", checkpoints_total_limit=None, max_train_steps=9)
    whole = load_file(tmp_path / "out" / "checkpoint-9" / "model.safetensors")
    monkeypatch.chdir(tmp_path)
    for name in (
        "checkpoint-6",
        "checkpoint-6/",
        "out/checkpoint-6",
        str(tmp_path / "out" / "checkpoint-6"),
    ):
        with pytest.warns(UserWarning, match="going back to checkpoint-6: .* no longer checkpoin"):
            _, steps = run("out", resume_from_checkpoint=name, max_train_steps=9)
        assert steps == [7, 8, 9]
        again = load_file(tmp_path / "out" / "checkpoint-9" / "model.safetensors")
        assert all(tensor.equal(whole[key]) for key, tensor in again.items())


@pytest.mark.parametrize("name", ["checkpoint-4", "out", "/no/such", "latest-one", "x" * 300])
def test_unknown_checkpoints_are_refused_with_those_there_are(tmp_path, monkeypatch, name):
    run(tmp_path / "out")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="is no complete checkpoint; .*checkpoint-6"):
        run("out", resume_from_checkpoint=name)


def test_latest_of_nothing_starts_anew_and_says_so(tmp_path):
    with pytest.warns(FreshStart, match="has no checkpoint yet: starting at the first step"):
        _, steps = run(tmp_path / "out", resume_from_checkpoint="latest")
    assert steps[0] == 1


def test_latest_with_a_finished_result_and_no_checkpoint_is_refused(tmp_path):
    run(tmp_path)
    for name in ("checkpoint-3", "checkpoint-6"):
        (tmp_path / name).rename(tmp_path.parent / f"{tmp_path.name}-{name}")
    with pytest.raises(ValueError, match=r"holds a run already \(model\): choose another"):
        run(tmp_path, resume_from_checkpoint="latest")


def test_a_checkpoint_past_the_end_is_refused_and_at_the_end_only_written_again(tmp_path):
    run(tmp_path)
    before = content(tmp_path)
    with pytest.raises(ValueError, match="of step 6, past max_train_steps = 5: raise it"):
        run(tmp_path, resume_from_checkpoint="latest", max_train_steps=5)
    assert run(tmp_path, resume_from_checkpoint="latest")[1] == []
    assert content(tmp_path) == before


def test_a_run_that_goes_back_ends_with_its_own_result(tmp_path):
    """Killed before it reaches the old newest step, it goes on from its own checkpoint."""
    run(tmp_path, max_train_steps=6)
    other = {"resume_from_checkpoint": "checkpoint-3", "checkpointing_steps": 1, "seed": 7}
    with pytest.warns(UserWarning):
        run(tmp_path, stop_after=5, max_train_steps=7, **other)
    assert latest_checkpoint(tmp_path).name == "checkpoint-4"
    # limited to two, the checkpoint that lies ahead has gone before the one it came from
    assert names(tmp_path) == ["checkpoint-3", "checkpoint-4", "model"]
    other["resume_from_checkpoint"] = "latest"
    model, steps = run(tmp_path, max_train_steps=7, **other)
    assert steps == [5, 6, 7]
    assert json.loads((tmp_path / "model" / "model.json").read_text()) == 7
    with pytest.warns(UserWarning, match="seed = 7"):
        run(tmp_path / "fork-base")
        base = tmp_path / "fork-base" / "checkpoint-3"
        expected, _ = run(
            tmp_path / "fork", resume_from_checkpoint=str(base), seed=7, max_train_steps=7
        )
    assert torch.equal(model.weight, expected.weight)


def test_a_fork_goes_into_a_folder_of_its_own(tmp_path):
    run(tmp_path / "one")
    start = str(tmp_path / "one" / "checkpoint-3")
    before = content(tmp_path / "one")
    _, steps = run(tmp_path / "two", resume_from_checkpoint=start, max_train_steps=5)
    assert steps == [4, 5] and content(tmp_path / "one") == before
    assert names(tmp_path / "two") == ["checkpoint-5", "model"]
    with pytest.raises(ValueError, match="two holds a run already"):
        run(tmp_path / "two", resume_from_checkpoint=start)


def test_latest_of_several_runs_is_refused(tmp_path):
    run(tmp_path / "one", max_train_steps=3)
    run(tmp_path / "two", max_train_steps=6)
    (tmp_path / "two" / "checkpoint-6").rename(tmp_path / "one" / "checkpoint-6")
    with pytest.raises(ValueError, match="of several runs .*checkpoint-3, checkpoint-6"):
        run(tmp_path / "one", resume_from_checkpoint="latest", max_train_steps=9)


def test_only_a_runs_own_checkpoints_are_pruned(tmp_path):
    run(tmp_path / "one", max_train_steps=3)
    run(tmp_path / "two", max_train_steps=6)
    (tmp_path / "two" / "checkpoint-6").rename(tmp_path / "one" / "checkpoint-6")
    settings = {"checkpoints_total_limit": 1, "checkpointing_steps": 1, "max_train_steps": 5}
    with pytest.warns(UserWarning, match="going back"):
        run(tmp_path / "one", resume_from_checkpoint="checkpoint-3", **settings)
    assert names(tmp_path / "one") == ["checkpoint-5", "checkpoint-6", "model"]


def test_what_is_refused_leaves_no_folder(tmp_path):
    with pytest.raises(ValueError, match="no complete checkpoint"):
        run(tmp_path / "deep" / "out", resume_from_checkpoint="checkpoint-3")
    assert names(tmp_path) == []


def test_what_a_killed_run_left_half_written_goes(tmp_path):
    run(tmp_path, max_train_steps=3)
    (tmp_path / ".flowsteer-abc").mkdir()
    (tmp_path / ".flowsteer-abc" / "model.safetensors").write_text("half")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(tmp_path, resume_from_checkpoint="latest")
    assert names(tmp_path) == ["checkpoint-3", "checkpoint-6", "model"]


def test_a_result_that_finds_no_room_is_one_line_and_latest_writes_it_later(tmp_path, monkeypatch):
    def full(folder, steps):
        (folder / "model.json").write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(globals(), "write", full)
    with pytest.raises(OSError, match=r"/model could not be written \(.*No space left on device"):
        run(tmp_path)
    assert names(tmp_path) == ["checkpoint-3", "checkpoint-6"]
    monkeypatch.undo()
    assert run(tmp_path, resume_from_checkpoint="latest")[1] == []
    assert json.loads((tmp_path / "model" / "model.json").read_text()) == 6


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="file/out' cannot be written: Not a directory"):
        run(tmp_path / "file" / "out")


def test_a_damaged_checkpoint_is_passed_over_and_written_again(tmp_path):
    """Its record was cut, as by a disk that failed."""
    whole, _ = run(tmp_path / "whole")
    run(tmp_path / "out")
    record = tmp_path / "out" / "checkpoint-6" / "checkpoint.json"
    record.write_text(record.read_text()[:40])
    model = tmp_path / "out" / "checkpoint-3" / "model.safetensors"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        resumed, steps = run(tmp_path / "out", resume_from_checkpoint="checkpoint-3")
    assert steps == [4, 5, 6] and torch.equal(whole.weight, resumed.weight)
    assert latest_checkpoint(tmp_path / "out").name == "checkpoint-6" and model.is_file()
    assert not [w for w in caught if "going back" in str(w.message)]
