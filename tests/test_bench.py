import pytest
import torch

from flowsteer.bench import (
    BENCHES,
    BenchReport,
    Ratio,
    Timing,
    bench_generate,
    bench_import,
    bench_starts,
    interleave,
    run_benches,
)
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


def test_both_starts_are_timed_on_the_same_work(tiny):
    """As many teacher calls and student samples each; the pipeline stays as it was."""
    before = {name: value.clone() for name, value in tiny.transformer.state_dict().items()}
    rows = []
    tiny.transformer.register_forward_pre_hook(
        lambda module, args, kwargs: rows.append(len(kwargs["hidden_states"])), with_kwargs=True
    )
    report = bench_starts(tiny, repeats=1, batch_size=2, substeps=1)
    # in each of four windows a guided call of the teacher, then one of its student, which took the
    # hook along; an iteration to warm up and a timed one, of two kinds
    assert rows == [4, 2] * 4 * 2 * 2
    perflow, ota = report.timings
    assert report.ratios[0].value == ota.median / perflow.median
    assert report.ratios[0].at_most == 1.10
    after = tiny.transformer.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_imports_are_timed_in_fresh_processes():
    report = bench_import(repeats=1)
    assert all(timing.median > 0 for timing in report.timings)
    assert report.ratios[0].value == report.timings[1].median


def test_unknown_benchmarks():
    with pytest.raises(ValueError, match=f"'nothing' is unknown; use one of {', '.join(BENCHES)}"):
        list(run_benches(["nothing"], "none", 1))
