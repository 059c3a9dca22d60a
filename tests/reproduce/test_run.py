"""Doing cells: cut, resumed, left for later, in the right order."""

import time
from dataclasses import replace

import pytest

from flowsteer.reproduce.jobs import Deadline
from flowsteer.reproduce.presets import find_preset
from flowsteer.reproduce.run import chosen_rates, missing_tuning
from flowsteer.reproduce.teaching import should_stop, thinned

PRESET = find_preset("smoke")
RUN = "3-ota-scheduler-seed0"


class Countdown:
    """A deadline that comes after so many questions."""

    def __init__(self, questions):
        self.questions = questions

    def leaves(self, seconds):
        self.questions -= 1
        return self.questions >= 0


def states(reproduction):
    return {progress.cell.name: progress.state for progress in reproduction.run()}


def test_a_run_that_is_cut_goes_on_and_comes_to_the_same(reproduction):
    """Cut at the second report, when the first checkpoint is there; no tuning, so another rate."""
    whole = reproduction(RUN, seeds=(0,))
    assert states(whole) == {RUN: "done"}
    expected = whole.store.read(RUN)
    (whole.store.cells / f"{RUN}.json").unlink()

    cut = reproduction(RUN, seeds=(0,), deadline=Countdown(2))
    assert states(cut) == {RUN: "cut"}
    assert not cut.store.has(RUN)
    assert [path.name for path in cut.store.run(RUN).glob("checkpoint-*")] == ["checkpoint-1"]
    assert states(reproduction(RUN, seeds=(0,))) == {RUN: "done"}
    resumed = cut.store.read(RUN)
    assert resumed["config"] == expected["config"]
    for one, two in zip(
        resumed["results"]["checkpoints"], expected["results"]["checkpoints"], strict=True
    ):
        assert one["ways"] == two["ways"]
    for name in ("loss", "grad_norm", "cosine"):
        curves = (record["results"]["curve"] for record in (resumed, expected))
        assert next(curves)[name] == pytest.approx(next(curves)[name])
    assert not cut.store.run(RUN).exists()


def test_a_run_that_was_killed_while_it_was_judged_is_judged_again(reproduction, monkeypatch):
    """All checkpoints and the student are there, the JSON is not."""
    first = reproduction(RUN, seeds=(0,))
    monkeypatch.setattr(type(first.store), "write", _killed)
    with pytest.raises(KeyboardInterrupt):
        list(first.run())
    monkeypatch.undo()
    assert first.store.run(RUN).is_dir() and not first.store.has(RUN)
    assert states(reproduction(RUN, seeds=(0,))) == {RUN: "done"}
    results = first.store.read(RUN)["results"]
    assert results["curve"]["step"] == [1, 2] and len(results["checkpoints"]) == 2
    assert (first.store.students / RUN / "flowsteer.json").is_file()


def _killed(*args, **kwargs):
    raise KeyboardInterrupt


def test_without_time_everything_is_left(reproduction):
    late = reproduction(tables=("0", "2"), deadline=Deadline(time.monotonic() - 1))
    found = {progress.cell.name: progress for progress in late.run()}
    assert {progress.state for progress in found.values()} == {"left", "waits"}
    assert found["0-variants"].state == "left"
    assert "0-variants: left, it does not fit" in str(found["0-variants"])
    assert not late.store.folder.joinpath("cells").exists()


def test_a_cell_like_one_that_took_longer_than_the_time_left_is_not_begun(reproduction, fakes):
    """The fake sweep took 100 s; 50 are left."""
    fakes.write("2-other", "2", {"rows": []})
    record = fakes.store.read("2-other")
    record["config"]["kind"] = "scheduler"
    fakes.store.write(record)
    soon = reproduction("2-scheduler-teacher", deadline=Deadline.after(50))
    assert states(soon) == {"2-scheduler-teacher": "left"}


def test_a_sweep_waits_for_its_student(reproduction):
    (progress,) = reproduction("2-scheduler-all").run()
    assert progress.state == "waits" and "student of 3-all-seed0" in progress.why


def test_runs_wait_for_tuning_that_is_wanted_or_begun(reproduction, fakes):
    everything = reproduction(tables=("3", "tuning"), deadline=Deadline(time.monotonic() - 1))
    found = states(everything)
    assert found["3-all-seed0"] == "waits" and found["tuning-all-lr0.001"] == "left"
    without = reproduction(tables=("3",), deadline=Deadline(time.monotonic() - 1))
    assert set(states(without).values()) == {"left"}
    fakes.tuning("all", 1e-3, 0.5, 0.4)
    found = states(reproduction(tables=("3",), deadline=Deadline(time.monotonic() - 1)))
    assert found["3-all-seed0"] == "waits" and found["3-perflow-seed0"] == "left"


def test_the_rate_that_obeys_most_is_taken_and_of_equals_the_nearer(fakes):
    rates = replace(PRESET, learning_rates=(1e-4, 1e-3, 1e-2))
    for rate, accuracy, distance in [(1e-4, 0.5, 0.1), (1e-3, 0.7, 0.5), (1e-2, 0.7, 0.4)]:
        fakes.tuning("all", rate, accuracy, distance)
    fakes.tuning("reflow", 1e-4, 0.9, 0.1)  # the others are missing
    assert chosen_rates(fakes.store, rates) == {"all": 1e-2}
    assert missing_tuning(fakes.store, rates, "reflow", planned=False) == [
        "tuning-reflow-lr0.001",
        "tuning-reflow-lr0.01",
    ]
    assert not missing_tuning(fakes.store, rates, "perflow", planned=False)
    assert len(missing_tuning(fakes.store, rates, "perflow", planned=True)) == 3


def test_cells_of_other_settings_stop_it_before_anything_is_done(reproduction, fakes):
    fakes.write("1-mismatch", "1", {})
    with pytest.raises(ValueError, match=r"1-mismatch\.json was made with .* is wanted"):
        next(reproduction(tables=("0", "1")).run())
    assert not fakes.store.has("0-variants")


def test_unknown_cells_are_refused_with_those_there_are(reproduction):
    with pytest.raises(ValueError, match="no cell 'x' among those chosen; use some of 0-variants"):
        list(reproduction("x", tables=("0",)).run())


@pytest.mark.parametrize(
    ("step", "paces", "left", "expected"),
    [
        (9, [60.0] + [1.0] * 8, 6.5, True),  # seven more steps to the next checkpoint, at 1 s
        (9, [60.0] + [1.0] * 8, 7.5, False),
        (12, [1.0] * 12, 0.0, False),  # not after a checkpoint: going on saves what is begun
        (1, [60.0], 0.5, False),  # the first step compiles, so it foretells nothing
        (1, [60.0], -1.0, True),
        (17, [1.0], -1.0, True),
    ],
)
def test_a_run_stops_only_after_a_checkpoint_and_only_if_the_next_is_too_far(
    step, paces, left, expected
):
    deadline = Deadline.after(left)
    assert should_stop(step, 8, 1, paces, deadline) is expected
    assert should_stop(step, 8, 1, paces, Deadline()) is False


@pytest.mark.parametrize(("step", "expected"), [(8, False), (10, True), (12, False)])
def test_with_rarer_reports_the_first_after_a_checkpoint_is_the_place(step, expected):
    assert should_stop(step, 8, 2, [1.0] * 4, Deadline.after(5.5)) is expected


def test_with_a_checkpoint_every_step_each_is_a_place_to_stop():
    assert all(should_stop(step, 1, 1, [1.0], Deadline.after(-1)) for step in (1, 2, 3))


def test_thinned_logs_keep_means_and_the_last_step():
    steps = [{"step": n, "loss": float(n), "cosine": 0.5} for n in range(1, 8)]
    few = thinned(steps, 3)
    assert few == {"step": [3, 6, 7], "loss": [2.0, 5.0, 7.0], "cosine": [0.5] * 3}
    assert thinned(steps, 96)["loss"] == [step["loss"] for step in steps]
