import json
import subprocess
import sys

import pytest
import torch

from flowsteer.bench import (
    BENCHES,
    BenchReport,
    Ratio,
    Timing,
    bench_generate,
    bench_import,
    bench_train,
    interleave,
    run_benches,
)
from flowsteer.bench.training import matrix_peak
from flowsteer.distill.methods import METHODS
from flowsteer.loading import with_student


def test_tasks_take_turns_after_one_untimed_round():
    order = []
    timings = interleave({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 2)
    assert order == ["a", "b"] * 3
    assert [(timing.name, len(timing.seconds)) for timing in timings] == [("a", 2), ("b", 2)]


@pytest.mark.parametrize(
    ("ratio", "kept"),
    [
        (Ratio("x", 6.0, at_least=6), True),
        (Ratio("x", 5.9, at_least=6), False),
        (Ratio("x", 1.15, at_most=1.15), True),
        (Ratio("x", 1.2, at_most=1.15), False),
        (Ratio("x", float("nan"), at_most=1.15), False),
    ],
)
def test_limits(ratio, kept):
    assert ratio.kept is kept
    assert ("yes" in str(ratio)) is kept


def test_the_table_has_medians():
    report = BenchReport("T", (Timing("a", (3.0, 1.0, 2.0)),), (Ratio("r", 2.0, at_most=3),))
    assert "2.000 s" in report.table()
    assert "r 2 (at most 3: yes)" in report.table()
    assert report.to_json()["medians"] == {"a": 2.0}
    assert report.to_json()["kept"] is True


def test_generation_counts_the_calls_it_says(tiny, lora_student):
    student = with_student(tiny, lora_student)
    calls = {"teacher": [], "student": []}
    for name, pipe in (("teacher", tiny), ("student", student)):
        pipe.transformer.register_forward_pre_hook(
            lambda module, args, kwargs, name=name: calls[name].append(
                len(kwargs["hidden_states"])
            ),
            with_kwargs=True,
        )
    report = bench_generate(tiny, student, repeats=1)
    # one untimed and one timed round of the whole call and of the calls alone
    assert calls["teacher"] == [2] * 28 * 4
    assert calls["student"] == [1] * 4 * 4
    assert len(report.timings) == 8
    assert [ratio.name for ratio in report.ratios][0] == "teacher 28x2 / student 4x1"
    median = {timing.name: timing.median for timing in report.timings}
    assert report.ratios[0].value == pytest.approx(
        median["teacher 28x2, whole call"] / median["student 4x1, whole call"]
    )


def test_every_method_is_timed_on_the_same_work(tiny):
    """As many teacher calls a window each; the pipeline stays as it was."""
    before = {name: value.clone() for name, value in tiny.transformer.state_dict().items()}
    rows = []
    tiny.transformer.register_forward_pre_hook(
        lambda module, args, kwargs: rows.append(len(kwargs["hidden_states"])), with_kwargs=True
    )
    report = bench_train(tiny, repeats=1, batch_size=2, substeps=1)
    # once to count operations, once to warm up, once timed; the networks took the hook along
    crossed = {"reflow": [4] * 4 + [2], "perflow": [4, 2] * 4, "ota": [4, 2] * 4}
    crossed["flowsteer"] = [4, 2] * 4 + [2]  # the state for the critic
    counted = sum(crossed.values(), [])
    assert rows == counted * 3
    median = {timing.name: timing.median for timing in report.timings}
    assert list(median) == list(METHODS)
    # as many samples a batch in both, so that ratios of samples are those of iterations
    assert report.ratios[0].value == pytest.approx(median["ota"] / median["perflow"])
    assert report.ratios[1].value == pytest.approx(median["flowsteer"] / median["ota"])
    assert [ratio.at_most for ratio in report.ratios] == [1.05, 2.0]
    after = tiny.transformer.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_operations_are_counted(tiny):
    """A student sample of OTA costs more with the critic, and the shares are of the peak."""
    report = bench_train(tiny, repeats=1, batch_size=2, substeps=1)
    shares = [float(note.split(", ")[1].split("%")[0]) for note in report.notes]
    assert len(shares) == len(METHODS) and all(0 <= share <= 100 for share in shares)
    assert matrix_peak(torch.device("cpu"), torch.float32) > 1e9


def test_imports_are_timed_in_fresh_processes():
    report = bench_import(repeats=1)
    assert all(timing.median > 0 for timing in report.timings)
    assert report.ratios[0].value == report.timings[1].median


@pytest.mark.slow
def test_the_app_is_timed_against_the_bare_calls(tmp_path):
    file = tmp_path / "app.json"
    # a process of its own: playwright allows one browser driver in each
    command = ["-m", "flowsteer", "bench", "app", "--repeats", "1", "--json", str(file)]
    subprocess.run([sys.executable, *command], check=True, capture_output=True)
    (report,) = json.loads(file.read_text(encoding="utf-8"))
    median = report["medians"]
    assert all(value > 0 for value in median.values())
    alone = [value for name, value in median.items() if name.startswith("alone")]
    assert len(alone) == 4
    assert report["ratios"][-1]["value"] == median["compare, 4 columns"] / sum(alone)
    assert len(report["ratios"]) == (1 if report["notes"] else 3)


def test_unknown_benchmarks():
    with pytest.raises(ValueError, match=f"'nothing' is unknown; use one of {', '.join(BENCHES)}"):
        list(run_benches(["nothing"], "none", 1))
