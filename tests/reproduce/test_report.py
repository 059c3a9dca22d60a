"""The report on made-up cells: its verdicts follow the truth they were made with."""

import math
import sys

import pytest
import torch

from flowsteer.measure import Interval
from flowsteer.reproduce.ablation import (
    ablation_section,
    beyond_section,
    equal_time,
    runs_of,
    verdicts,
)
from flowsteer.reproduce.cells import plan
from flowsteer.reproduce.presets import ROWS, find_preset
from flowsteer.reproduce.report import done_section, readme_table, report_lines, write_report
from flowsteer.reproduce.rollout import solver_section
from flowsteer.reproduce.scores import gain, scores_of, shared_seeds, time_budget
from flowsteer.reproduce.tables import decide, hurts, markdown, mismatch_verdicts

PRESET = find_preset("full")


def at_last(fakes):
    records = fakes.store.read_all()
    return verdicts({run.row: run.at() for run in runs_of(records)}, records)


def line(lines, start):
    (found,) = [text for text in lines if text.startswith(f"- {start}")]
    return found


@pytest.fixture
def paper(fakes):
    """The paper's order with room between, three seeds each, and what there is to beat."""
    fakes.variants(weak=0.3, strong=0.58)
    for seed in range(3):
        fakes.run("perflow", seed, 0.50, 0.60)
        fakes.run("perflow-ota", seed, 0.65, 0.50)
        fakes.run("perflow-adversarial", seed, 0.75, 0.40, seconds=160)
        fakes.run("all", seed, 0.95, 0.25, seconds=170)
    return fakes


def test_the_papers_order_is_found_where_it_is(paper):
    lines = at_last(paper)
    for order in ("PeRFlow < +OTA", "+OTA < +adversarial", "+adversarial < all (FlowSteer)"):
        text = line(lines, f"{order} in EmojiEval")
        assert ", holds (3 seeds);" in text and "it is nearer, -0.1" in text
    assert "+0.450 [+0.4" in line(lines, "PeRFlow < all")
    assert "+0.050" in line(lines, "FlowSteer at least") and "holds" in line(
        lines, "FlowSteer at l"
    )
    assert "at 0.417 of it, holds" in line(lines, "FlowSteer at half")
    best = line(lines, "Above the best undistilled row (*strong*")
    above, below = best.split("not, or not decided")
    assert "+OTA" in above and "all" in above and "PeRFlow" in below


def test_the_reverse_is_told_too(fakes):
    for seed in range(3):
        fakes.run("perflow", seed, 0.90, 0.30)
        fakes.run("all", seed, 0.60, 0.29)
        fakes.run("ota-scheduler", seed, 0.95, 0.20)
    lines = at_last(fakes)
    assert "-0.300" in line(lines, "PeRFlow < all") and "is reversed" in line(
        lines, "PeRFlow < all"
    )
    critic = line(lines, "OTA +scheduler < all")
    assert "is reversed" in critic and "it is farther, +0.090" in critic
    assert "does not hold." in line(lines, "FlowSteer at least")
    assert "at 0.967 of it, does not hold" in line(lines, "FlowSteer at half")
    assert not [text for text in lines if "undistilled" in text]  # table 0 is not done


def test_equals_are_not_decided_and_the_teachers_level_may_be(fakes):
    for seed in range(2):
        fakes.run("perflow", seed, 0.90, 0.30)
        fakes.run("all", seed, 0.90, 0.15)
    lines = at_last(fakes)
    assert "is not decided (2 seeds)" in line(lines, "PeRFlow < all")
    assert "holds, though the interval has 0 in it" in line(lines, "FlowSteer at least")
    assert "at 0.500 of it" in line(lines, "FlowSteer at half")


def test_seeds_that_disagree_leave_it_open(fakes):
    """A mean gain of 0.1 that one seed of three turns around."""
    for seed, accuracy in enumerate((0.8, 0.8, 0.4)):
        fakes.run("perflow", seed, 0.55, 0.3)
        fakes.run("all", seed, accuracy, 0.3)
    text = line(at_last(fakes), "PeRFlow < all")
    assert "is not decided" in text and "it is as far, +0.000" in text


def test_only_common_seeds_are_paired(fakes):
    fakes.run("perflow", 0, 0.5, 0.3)
    for seed in (0, 1):
        fakes.run("all", seed, 0.8, 0.3)
    fakes.run("perflow-ota", 7, 0.6, 0.3)
    lines = at_last(fakes)
    assert "(1 seed)" in line(lines, "PeRFlow < all")
    assert "no seed in common" in line(lines, "PeRFlow < +OTA")
    records = fakes.store.read_all()
    text = "\n".join(ablation_section(records))
    assert "| PeRFlow | 0 (one alone) |" in text and "| all (FlowSteer) | 0, 1 |" in text


def test_at_equal_time_a_slower_row_shows_an_earlier_checkpoint(paper):
    """+adversarial takes twice PeRFlow's 80 s, so its fourth of eight; all 170, so none."""
    records = paper.store.read_all()
    runs = runs_of(records)
    assert time_budget(runs) == pytest.approx(80.8)
    timed = equal_time(runs)
    assert set(timed) == {"perflow", "perflow-ota", "perflow-adversarial"}
    scores, seconds = timed["perflow-adversarial"]
    assert seconds == pytest.approx(80)
    assert float(scores.correct.mean()) == pytest.approx(0.75 - 0.04, abs=2e-3)
    assert timed["perflow"][1] == pytest.approx(80)
    text = "\n".join(ablation_section(records))
    assert "within 80.8 s" in text
    assert "No judged checkpoint (they are of the second half): all (FlowSteer)." in text
    assert "| 500 | 80.0 | 22.18 | 27.73 |" in text  # half of the 1,000 samples


def test_a_row_with_fewer_samples_sets_no_time(fakes):
    fakes.run("perflow", 0, 0.5, 0.3, seconds=80)
    fakes.run("reflow", 0, 0.4, 0.3, seconds=20, samples=250, way=[(0.35, 0.5)])
    records = fakes.store.read_all()
    assert time_budget(runs_of(records)) == pytest.approx(80.8)
    assert "In a single step, ReFlow, K = 1 has an EmojiEval of 0.350" in "\n".join(
        ablation_section(records)
    )


def test_the_report_counts_what_is_done_and_missing(paper):
    records = paper.store.read_all()
    lines = done_section(records, plan(PRESET))
    (row,) = [text for text in lines if text.startswith("| 3. ablation")]
    assert row.startswith("| 3. ablation | 12 | 3-")
    assert "3-ota-scheduler-seed0" in row and "3-perflow-seed0" not in row
    assert "PeRFlow: 0, 1, 2; +OTA: 0, 1, 2" in lines[-1]


def test_a_report_of_any_part_can_be_written(paper):
    path = write_report(paper.store, plan(PRESET), {})
    text = path.read_text(encoding="utf-8")
    assert "## 3. Ablation" in text and "## 1. Mismatch" not in text
    assert "No learning rate was tuned" in text
    assert "![ablation](plots/ablation.svg)" in text and "random weights" not in text
    assert {path.name for path in (paper.store.folder / "plots").iterdir()} == {
        "ablation.svg",
        "time.svg",
        "curves.svg",
    }
    again = write_report(paper.store, plan(PRESET), {})
    assert again.read_text(encoding="utf-8") == text


def test_without_matplotlib_the_report_has_no_plots_and_says_why(paper, monkeypatch):
    for name in ("flowsteer.plots", "flowsteer.reproduce.figures"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.warns(UserWarning, match="no plots, which need matplotlib.*pip install"):
        path = write_report(paper.store, plan(PRESET), {})
    text = path.read_text(encoding="utf-8")
    assert "## 3. Ablation" in text and "![" not in text


def test_an_empty_folder_has_no_report(fakes):
    with pytest.raises(ValueError, match="has no cell yet"):
        write_report(fakes.store, plan(PRESET), {})
    assert not (fakes.store.folder / "report.md").exists()


def test_tuning_is_told_with_what_it_chose(fakes):
    for row in ROWS:
        fakes.tuning(row, 1e-3, 0.5, 0.4)
    fakes.tuning("all", 1e-2, 0.6, 0.3)
    records = fakes.store.read_all()
    text = "\n".join(report_lines(fakes.store.folder, records, [], {"all": 1e-2}, {}))
    assert "| all (FlowSteer) | 0.500 / 0.400 | 0.600 / 0.300 | 0.01 |" in text
    assert "| PeRFlow | 0.500 / 0.400 |  | the preset's: not all were run |" in text


def test_devices_that_differ_are_told(paper):
    record = paper.store.read("3-all-seed2")
    record["made_on"] = {"device": "another", "torch": "2", "flowsteer": "0"}
    paper.store.write(record)
    text = "\n".join(report_lines(paper.store.folder, paper.store.read_all(), [], {}, {}))
    assert "Made on a device, another" in text and "do not compare" in text


def test_a_change_stands_below_the_row_it_was_made_in_and_against_it(paper):
    paper.run("ota-scheduler", 0, 0.60, 0.45)
    paper.beyond("all", "critic_states = rollout", 0.55, 0.20)
    paper.beyond("ota-scheduler", "share_at_hi = 0.0", 0.85, 0.40)
    record = paper.store.read("4-critic_states-rollout")
    record["results"]["curve"] = {"critic_ranked": [0.1, 0.1, 0.6, 0.8]}
    paper.store.write(record)
    text = "\n".join(beyond_section(paper.store.read_all()))
    assert "-0.400 [" in text and "] | 0.700 |" in text
    names = ("*all (FlowSteer)*", "critic_states = rollout", "*OTA +sch", "share_at_hi = 0.0")
    places = [text.index(f"| {name}") for name in names]
    assert places == sorted(places)
    worse, better = (text[place:].splitlines()[0] for place in (places[1], places[3]))
    assert "-0.400 [" in worse and "+0.250 [" in better


def test_the_readmes_table_is_the_ablation_in_short(paper):
    lines = readme_table(paper.store.read_all()).splitlines()
    labels = [text.split(" | ")[0] for text in lines[2:]]
    expected = ["teacher, 28 steps", "strong", "PeRFlow", "+OTA", "+adversarial", "all (FlowSteer)"]
    assert labels == [f"| {label}" for label in expected]
    assert "| 3 | 0.950 [" in lines[-1]


def test_mismatch_is_judged_prompt_by_prompt(fakes):
    good, bad = [1] * 90 + [0] * 10, [1] * 60 + [0] * 40

    def row(k, t, correct):
        near = {"interpolated": 0.3, "authentic": 0.2}
        text = "".join(map(str, correct))
        return {"window": k, "t_hi": t, "interpolated": {"correct": text}, "latent_distance": near}

    own = {"correct": "".join(map(str, good))}
    rows = [row(1, 0.9, good), row(2, 0.75, bad), row(3, 0.5, [1] * 100)]
    records = {"1-mismatch": {"results": {"authentic": own, "rows": rows}}}
    same, worse, better = mismatch_verdicts(records)
    assert "window 2 (t = 0.9)" in same and "does not measurably change" in same
    assert "hurts the teacher's EmojiEval, -0.300" in worse and "1.50 times" in worse
    assert "helps the teacher's EmojiEval, +0.100" in better


def test_words_for_intervals():
    assert [decide(Interval(0.1, *ends)) for ends in ((0.01, 0.2), (-0.1, 0.2), (-0.2, -0.1))] == [
        "holds",
        "is not decided",
        "is reversed",
    ]
    assert hurts(Interval(0, 0, 0)) == "does not measurably change"


def test_scores_pair_by_seed_and_not_by_place(fakes):
    answers = [fakes.draw(accuracy, 0.3) for accuracy in (0.2, 0.8)]
    a = scores_of("a", answers, (0, 1))
    b = scores_of("b", answers[::-1], (1, 0))
    difference, seeds = gain(a, b)
    assert (difference.low, difference.high, seeds) == (0, 0, 2)
    assert gain(a, b, "distances")[0].mean == 0
    assert shared_seeds(a, scores_of("c", answers[:1])) == [0, 1]
    assert a.correct.shape == (2, 300) and a.distances.dtype == torch.float64
    with pytest.raises(ValueError, match="no seed in common"):
        gain(a, scores_of("d", answers[:1], (5,)))


def test_runs_on_different_prompts_are_no_row(fakes):
    one = fakes.draw(0.5, 0.3)
    fakes.count = 60
    with pytest.raises(ValueError, match=r"\[60, 300\] prompts"):
        scores_of("a", [one, fakes.draw(0.5, 0.3)], (0, 1))


def test_markdown_has_a_column_for_every_cell():
    assert markdown(["a", "b"], [["x", "1"]]) == ["| a | b |", "| --- | ---: |", "| x | 1 |"]


def solver_row(solver, calls, error):
    """A row of table 5 with the same error everywhere."""
    errors, edges = [[error] * 3] * 4, [0.9, 0.75, 0.5, 0.0]
    return {"solver": solver, "substeps": 1, "calls": calls, "edges": edges, "errors": errors}


@pytest.mark.parametrize(("speed", "word"), [(4, "does not hold"), (16, "holds")])
def test_solvers_are_held_against_euler_at_one_percent(fakes, speed, word):
    """Errors 0.2 / calls and 16 / (speed calls^2): 1% takes 20 and 40 / sqrt(speed) calls."""
    rows = [solver_row("euler", calls, 0.2 / calls) for calls in (10, 40)]
    rows += [solver_row("multistep", calls, 16 / speed / calls**2) for calls in (4, 64)]
    rows += [solver_row("heun", calls, 0.5) for calls in (2, 8)]
    fakes.write("5-solvers", "5", {"rows": rows}, reference_substeps=50)
    lines = solver_section(fakes.store.read_all())
    needed = 40 / math.sqrt(speed)
    text = "\n".join(lines)
    assert f"euler 20.0, multistep {needed:.1f}, heun is not measured so far." in text
    assert f"{needed / 20:.2f} of them, {word}" in text
    assert "to those of 50 Heun steps" in text
    assert "was aimed for" not in text


def test_where_one_percent_is_out_of_reach_solvers_are_held_against_each_other_before(fakes):
    """Euler 2 / calls, multistep 8 / calls^2: at 5%, Euler's best, 40 against sqrt(160) calls."""
    rows = [solver_row("euler", calls, 2 / calls) for calls in (10, 40)]
    rows += [solver_row("multistep", calls, 8 / calls**2) for calls in (4, 20)]
    fakes.write("5-solvers", "5", {"rows": rows}, reference_substeps=50)
    text = "\n".join(solver_section(fakes.store.read_all()))
    assert "endpoint error of 0.05," in text and "error of 0.01 was aimed for" in text
    assert "euler 40.0, multistep 12.6." in text and "0.32 of them, holds" in text
