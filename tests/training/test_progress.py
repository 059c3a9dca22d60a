"""How long a run will take is said once, early, with the flags that shorten it."""

import pytest

from flowsteer.training import TrainingConfig
from flowsteer.training.loop import StepReport
from flowsteer.training.progress import Forecast, duration, watch


def report(step, seconds_left):
    return StepReport(step, 0.1, 1.0, 1e-3, 8.0, seconds_left)


def config(folder, **settings):
    return TrainingConfig(str(folder), **({"max_train_steps": 700} | settings))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (40, "40 s"),
        (119, "119 s"),
        (120, "2 min"),
        (5400, "90 min"),
        (86_000, "24 h"),
        (3 * 86_400, "3 days"),
    ],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_a_long_run_says_once_how_long_it_will_take(tmp_path, capsys):
    reports = [report(1, 86_400.0), report(2, 86_000.0), report(3, 0.0)]
    assert list(watch(reports, config(tmp_path, train_batch_size=256), "distil")) == reports
    captured = capsys.readouterr()
    lines = [line for line in captured.err.replace("\r", "\n").splitlines() if "about" in line]
    assert lines == [
        "flowsteer: about 24 h left; shorten it with --max_train_steps (now 700) or"
        " --train_batch_size (now 256)"
    ]
    assert captured.out == ""


def test_both_bounds_are_named(tmp_path):
    line = Forecast(config(tmp_path, max_train_seconds=7200))(report(1, 7000.0))
    assert "about 117 min left" in line and "--max_train_seconds (now 7,200.0)" in line


def test_a_first_step_that_compiles_foretells_nothing(tmp_path):
    forecast = Forecast(config(tmp_path, compile=True))
    assert forecast(report(1, 50_000.0)) is None
    assert "about 8 min" in forecast(report(2, 480.0))
    assert forecast(report(3, 479.0)) is None


def test_a_run_of_seconds_says_nothing(tmp_path):
    assert Forecast(config(tmp_path))(report(1, 3.0)) is None
