"""The report's tables of training runs: the ablation, its learning rates, what is beyond it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from flowsteer.measure.bootstrap import Interval
from flowsteer.reproduce.cells import ablation_name
from flowsteer.reproduce.presets import ROWS
from flowsteer.reproduce.scores import (
    Runs,
    Scores,
    collect_runs,
    gain,
    last_answer,
    scores_of,
    shared_seeds,
    time_budget,
)
from flowsteer.reproduce.store import Record
from flowsteer.reproduce.tables import (
    Records,
    best_undistilled,
    decide,
    interval_of,
    markdown,
    overall,
    show,
    signed,
    teacher_scores,
)

ORDER = ("perflow", "perflow-ota", "perflow-adversarial", "all")
"""The paper's order, worst first."""
PAIRS = (
    *pairwise(ORDER),
    (ORDER[0], ORDER[-1]),
    ("perflow-scheduler", "ota-scheduler"),
    ("ota-scheduler", "all"),
)
"""What is compared: the paper's order, then what OTA and the critic add on rectified edges."""


def runs_of(records: Records) -> list[Runs]:
    """Every row of the ablation that has a run."""
    return collect_runs(records, [(name, row.label) for name, row in ROWS.items()])


def ablation_section(records: Records) -> list[str]:
    """Table 3: at equal student samples and at equal time."""
    runs = runs_of(records)
    rows, timed = equal_samples(runs), equal_time(runs)
    late = [run.label for run in runs if run.row not in timed]
    lines = [
        "Each row is one addition to PeRFlow, as in the paper's table 5; *all* is FlowSteer. The"
        " last two rows are ours. Rows without +scheduler are taught and run on the stock grid's"
        " edges. Students take 4 unguided calls. Intervals are over prompts and training seeds"
        " together.",
        "",
        "**Equal student samples** (ReFlow has one window, so as many teacher rollouts give it a"
        " quarter of them)",
        "",
        *_ablation_table(runs, rows, {run.row: run.mean("seconds") for run in runs}, records),
        *_single_step(runs),
        "",
        f"**Equal training time**: the last judged checkpoint within {time_budget(runs):.1f} s,"
        " which is what the quickest row took",
        "",
        *_ablation_table(
            [run for run in runs if run.row in timed],
            {row: scores for row, (scores, _) in timed.items()},
            {row: seconds for row, (_, seconds) in timed.items()},
            records,
        ),
    ]
    if late:
        lines += ["", f"No judged checkpoint (they are of the second half): {', '.join(late)}."]
    return [
        *lines,
        "",
        "At equal training time:",
        "",
        *verdicts({row: scores for row, (scores, _) in timed.items()}, records),
    ]


def equal_samples(runs: Sequence[Runs]) -> dict[str, Scores]:
    """Row -> its last checkpoint."""
    return {run.row: run.at() for run in runs}


def equal_time(runs: Sequence[Runs]) -> dict[str, tuple[Scores, float]]:
    """Row -> its last checkpoint within the time of the quickest row, and its seconds."""
    budget = time_budget(runs)
    steps = {run.row: run.last_within(budget) for run in runs}
    return {
        run.row: (run.at(step), run.seconds_at(step))
        for run in runs
        if (step := steps[run.row]) is not None
    }


def _ablation_table(
    runs: Sequence[Runs],
    rows: Mapping[str, Scores],
    seconds: Mapping[str, float],
    records: Records,
) -> list[str]:
    head = ["row", "seeds", "EmojiEval", "against PeRFlow", "against the best undistilled"]
    head += ["distance", "Frechet", "samples", "seconds", "paper: PickScore", "HPSv2"]
    body, best = [], best_undistilled(records)
    for run in runs:
        scores, paper = rows[run.row], ROWS[run.row].paper
        share = seconds[run.row] / run.mean("seconds")
        body.append(
            [
                run.label,
                _seeds(scores.seeds),
                show(scores.emoji_eval),
                "" if run.row == "perflow" else _gained(scores, rows.get("perflow")),
                _gained(scores, best),
                show(scores.distance),
                f"{scores.mean_frechet:.3f}",
                f"{share * run.mean('samples'):,.0f}",
                f"{seconds[run.row]:.1f}",
                *(["", ""] if paper is None else [f"{value:.2f}" for value in paper]),
            ]
        )
    return markdown(head, body)


def _gained(scores: Scores, other: Scores | None) -> str:
    """The difference in EmojiEval, where there is something to compare with."""
    if other is None or not shared_seeds(scores, other):
        return ""
    return signed(gain(scores, other)[0])


def _seeds(seeds: Sequence[int | None]) -> str:
    text = ", ".join(str(seed) for seed in seeds)
    return f"{text} (one alone)" if len(seeds) == 1 else text


def _single_step(runs: Sequence[Runs]) -> list[str]:
    """ReFlow's student needs no more than one step."""
    lines = []
    for run in runs:
        if run.row == "reflow":
            scores = run.at(way=1)
            lines = [
                "",
                f"In a single step, {run.label} has an EmojiEval of {show(scores.emoji_eval)} and a"
                f" distance of {show(scores.distance)}.",
            ]
    return lines


def verdicts(rows: Mapping[str, Scores], records: Records) -> list[str]:
    """What was aimed for, each line computed from the scores."""
    lines = [_compare(rows[high], rows[low]) for low, high in PAIRS if low in rows and high in rows]
    if "all" in rows:
        lines += _aims(rows["all"], rows.get("perflow"), teacher_scores(records))
    if (best := best_undistilled(records)) is not None:
        above = {row: gain(scores, best)[0].low > 0 for row, scores in rows.items()}
        names = {
            beats: ", ".join(
                ROWS[row].label for row, is_above in above.items() if is_above == beats
            )
            for beats in (True, False)
        }
        lines.append(
            f"- Above the best undistilled row (*{best.label}*, {show(best.emoji_eval)}) in"
            f" EmojiEval: {names[True] or 'none'}; not, or not decided: {names[False] or 'none'}."
        )
    return lines


def _compare(high: Scores, low: Scores) -> str:
    order = f"- {low.label} < {high.label} in EmojiEval"
    if not shared_seeds(high, low):
        return f"{order}: they have no seed in common."
    difference, seeds = gain(high, low)
    away, _ = gain(high, low, "distances")
    where = "farther" if away.low > 0 else "nearer" if away.high < 0 else "as far"
    word = "seed" if seeds == 1 else "seeds"
    return (
        f"{order}: {signed(difference)}, {decide(difference)} ({seeds} {word}); from the teacher it"
        f" is {where}, {signed(away)}."
    )


def _aims(everything: Scores, perflow: Scores | None, teacher: Scores | None) -> list[str]:
    """FlowSteer at least at the teacher's own EmojiEval, at half of PeRFlow's distance."""
    lines = []
    if teacher is not None:
        difference, _ = gain(everything, teacher)
        reached = "holds" if difference.mean >= 0 else "does not hold"
        doubt = "" if difference.excludes(0) else ", though the interval has 0 in it"
        lines.append(
            "- FlowSteer at least at the teacher's 28 steps in EmojiEval"
            f" ({show(teacher.emoji_eval)}): {signed(difference)}, {reached}{doubt}."
        )
    if perflow is not None and (whole := perflow.distance.mean) > 0:
        ratio = everything.distance.mean / whole
        reached = "holds" if ratio <= 0.5 else "does not hold"
        lines.append(f"- FlowSteer at half of PeRFlow's distance: at {ratio:.3f} of it, {reached}.")
    return lines


def tuning_section(records: Records, rates: Mapping[str, float]) -> list[str]:
    """How the learning rates were chosen."""
    cells = [record for record in records.values() if record["table"] == "tuning"]
    if not cells:
        return ["No learning rate was tuned: every row runs at the preset's."]
    values = sorted({cell["config"]["flags"]["learning_rate"] for cell in cells})
    steps = cells[0]["config"]["flags"]["max_train_steps"]
    count = cells[0]["config"]["num_prompts"]
    by_rate = {
        (cell["config"]["label"], cell["config"]["flags"]["learning_rate"]): cell for cell in cells
    }
    body = []
    for name, row in ROWS.items():
        shown = [_tuned(by_rate.get((row.label, value))) for value in values]
        chosen = f"{rates[name]:g}" if name in rates else "the preset's: not all were run"
        body.append([row.label, *shown, chosen])
    return [
        f"Every row gets the same effort: one run of {steps} steps at each of {len(values)} rates"
        f" with seed 0, judged on {count} dev prompts; the rate with the highest EmojiEval is"
        " taken, of equals the one nearer to the teacher. Cells are EmojiEval / distance.",
        "",
        *markdown(["row", *(f"{value:g}" for value in values), "chosen"], body),
    ]


def _tuned(cell: Record | None) -> str:
    if cell is None:
        return ""
    answer = last_answer(cell)
    return f"{overall(answer).mean:.3f} / {answer['distance']['mean']:.3f}"


def beyond_section(records: Records) -> list[str]:
    """Table 4: one flag changed, a run each, against the ablation's cell of the same seed."""
    cells = [record for record in records.values() if record["table"] == "4"]
    seed, body = cells[0]["seed"], []
    for row in dict.fromkeys(record["row"] for record in cells):
        base = records.get(ablation_name(row, seed))
        if base is not None:
            own = _judged(last_answer(base))
            body.append([f"*{ROWS[row].label}*", *own, "", _critic_ranks(base)])
        for record in cells:
            if record["row"] == row:
                change = "" if base is None else signed(_change(record, base))
                own = _judged(last_answer(record))
                body.append([record["label"], *own, change, _critic_ranks(record)])
    head = ["run", "EmojiEval", "distance", "Frechet", "EmojiEval against base", "critic right"]
    return [
        f"One flag changed from the row above it, one run each (seed {seed}), so the intervals are"
        " over prompts alone and say nothing about other seeds. share_at_hi is the share of times"
        " drawn at a window's start, where inference asks (the paper: 0); share_on_policy that of"
        " samples whose windows start from the student's own states; critic_states says whether"
        " the critic sees the student's single steps or its own rollout, critic_logits whether it"
        " judges each token or their mean. The last column tells how often the critic held the"
        " teacher's state for the truer of two from one noise, in the second half of the run; 0.5"
        " is guessing.",
        "",
        *markdown(head, body),
    ]


def _critic_ranks(record: Record) -> str:
    """Mean of the log's second half; nothing without a critic."""
    ranked = record["results"].get("curve", {}).get("critic_ranked", [])
    late = ranked[len(ranked) // 2 :]
    return f"{sum(late) / len(late):.3f}" if late else ""


def _judged(answer: Mapping) -> list[str]:
    distance = interval_of(answer["distance"])
    return [show(overall(answer)), show(distance), f"{answer['frechet']:.3f}"]


def _change(record: Record, base: Record) -> Interval:
    return gain(scores_of("run", [last_answer(record)]), scores_of("base", [last_answer(base)]))[0]
