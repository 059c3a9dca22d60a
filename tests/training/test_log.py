"""The log of a run: every report once, in order, whatever happened to the run."""

import pytest

from flowsteer.training.log import LOG_FILE, TrainingLog, read_log
from flowsteer.training.loop import StepReport


def report(step, loss=0.5, since=None, **metrics):
    return StepReport(step, loss, 1.0, 2e-4, 12.3456789, 60.0, metrics, since=since)


def test_rows_come_back(tmp_path):
    log = TrainingLog(tmp_path / "run")
    assert read_log(tmp_path / "run") == []
    log.add(report(1, cosine=0.25))
    log.add(report(2, loss=0.4))
    first, second = read_log(tmp_path / "run")
    assert first == {
        "step": 1,
        "loss": 0.5,
        "grad_norm": 1.0,
        "learning_rate": 2e-4,
        "samples_per_second": 12.3457,
        "cosine": 0.25,
    }
    assert (second["step"], second["loss"]) == (2, 0.4)


def test_resumed_run_repeats_no_row(tmp_path):
    log = TrainingLog(tmp_path)
    for step in (1, 2, 3, 4):
        log.add(report(step, loss=0.1 * step))
    resumed = TrainingLog(tmp_path)  # from the checkpoint at step 2
    resumed.add(report(3, loss=9.0))
    assert [(r["step"], r["loss"]) for r in read_log(tmp_path)] == [(1, 0.1), (2, 0.2), (3, 9.0)]
    assert [path.name for path in tmp_path.iterdir()] == [LOG_FILE]


def test_line_of_a_killed_run_is_passed_over(tmp_path):
    TrainingLog(tmp_path).add(report(1))
    with (tmp_path / LOG_FILE).open("a") as file:
        file.write('{"step": 2, "lo')
    assert [row["step"] for row in read_log(tmp_path)] == [1]
    TrainingLog(tmp_path).add(report(2))
    assert [row["step"] for row in read_log(tmp_path)] == [1, 2]


def test_damaged_line_is_named(tmp_path):
    (tmp_path / LOG_FILE).write_text('{"step": 1\n{"step": 2}\n')
    with pytest.raises(ValueError, match=r"log.jsonl, line 1: .*; remove the line"):
        read_log(tmp_path)


def test_rarer_reports_after_going_back_leave_no_row_of_the_other_history(tmp_path):
    """Resumed at step 2, the first report is of steps 3 to 5."""
    log = TrainingLog(tmp_path)
    for step in range(1, 7):
        log.add(report(step, loss=0.1))
    TrainingLog(tmp_path).add(report(5, loss=9.0, since=2))
    assert [(r["step"], r["loss"]) for r in read_log(tmp_path)] == [(1, 0.1), (2, 0.1), (5, 9.0)]


def test_a_full_disk_names_the_file(tmp_path, monkeypatch):
    log = TrainingLog(tmp_path)
    log.add(report(1))

    def refuse(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.open", refuse)
    with pytest.raises(OSError, match=r"log.jsonl could not be written \(.*No space left"):
        log.add(report(2))
