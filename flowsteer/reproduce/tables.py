"""The report's tables 0 to 2: the teacher alone, and its scheduler."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flowsteer.measure.bootstrap import Interval, paired_bootstrap
from flowsteer.reproduce.scores import Answer, Scores, scores_of
from flowsteer.reproduce.store import Record

Records = Mapping[str, Record]


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A Markdown table, the first column of words and the others of figures."""
    lines = ["|" + "|".join([" --- ", *[" ---: "] * (len(head) - 1)]) + "|"]
    return [_line(head), *lines, *map(_line, rows)]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def show(interval: Interval, digits: int = 3) -> str:
    """ "0.825 [0.805, 0.845]"."""
    mean, low, high = (f"{v:.{digits}f}" for v in (interval.mean, interval.low, interval.high))
    return f"{mean} [{low}, {high}]"


def signed(interval: Interval) -> str:
    """ "+0.052 [+0.030, +0.074]"."""
    return f"{interval.mean:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"


def decide(difference: Interval) -> str:
    """Whether a difference that is expected above 0 is."""
    if difference.low > 0:
        return "holds"
    return "is reversed" if difference.high < 0 else "is not decided"


def interval_of(value: Mapping[str, float]) -> Interval:
    """As JSON holds it."""
    return Interval(value["mean"], value["low"], value["high"])


def overall(answer: Answer) -> Interval:
    """EmojiEval of an answer, over its prompts."""
    return interval_of(answer["emoji_eval"]["overall"])


def correct_of(answer: Answer) -> list[float]:
    """1 where a prompt was obeyed."""
    return [float(verdict) for verdict in answer["correct"]]


def best_undistilled(records: Records) -> Scores | None:
    """The most obedient undistilled variant, if table 0 is done."""
    if "0-variants" not in records:
        return None
    rows = records["0-variants"]["results"]["rows"]
    best = max(rows, key=lambda row: row["emoji_eval"]["overall"]["mean"])
    return scores_of(best["label"], [best])


def teacher_scores(records: Records) -> Scores | None:
    """The teacher's 28 steps, from any cell that has them."""
    for record in records.values():
        answer = record["results"].get("teacher")
        if answer is not None and record["table"] != "tuning":  # those are of dev prompts
            return scores_of(answer["label"], [answer])
    return None


def variants_section(records: Records) -> list[str]:
    """Table 0."""
    results = records["0-variants"]["results"]
    rows = [results["teacher"], *results["rows"]]
    best = max(results["rows"], key=lambda row: row["emoji_eval"]["overall"]["mean"])
    near = min(results["rows"], key=lambda row: row["distance"]["mean"])
    return [
        "Every way to run the teacher in 4 steps without teaching anyone. No method is worth its"
        " row unless it beats the best of these.",
        "",
        *markdown(
            ["sampled by", "NFE", "EmojiEval", "distance", "Frechet"],
            [
                [
                    row["label"],
                    str(row["nfe"]),
                    show(overall(row)),
                    show(interval_of(row["distance"])),
                    f"{row['frechet']:.2f}",
                ]
                for row in rows
            ],
        ),
        "",
        f"- The most obedient is *{best['label']}*, {show(overall(best))}; the nearest to the"
        f" teacher's 28 steps is *{near['label']}*, at {show(interval_of(near['distance']))}.",
    ]


def mismatch_section(records: Records) -> list[str]:
    """Table 1."""
    results = records["1-mismatch"]["results"]
    own = results["authentic"]
    head = ["start", "EmojiEval", "against authentic", "Frechet to true pictures"]
    head += ["Frechet to the teacher's", "latent distance", "of authentic states"]
    rows = [["authentic, any edge", show(overall(own)), "", *_frechets(own), "", ""]]
    for row in results["rows"]:
        moved, near = row["interpolated"], row["latent_distance"]
        rows.append(
            [
                f"interpolated, {_window(row)}",
                show(overall(moved)),
                signed(paired_bootstrap(correct_of(moved), correct_of(own))),
                *_frechets(moved),
                f"{near['interpolated']:.4f}",
                f"{near['authentic']:.4f}",
            ]
        )
    directions = records["1-mismatch"]["config"]["directions"]
    return [
        "The guided teacher takes the rest of its 28 steps from its own state at an edge, or from"
        " `(1 - t) x_0 + t eps` with a true picture of the same prompt and the same noise. Latent"
        f" distance is the Frechet distance in the {directions} leading directions, over the"
        " variance there, to the teacher's states from other noises; the last column is what"
        " another sample of the teacher's own states has. Frechet to the teacher's is that to its"
        " pictures from other noises. The paper's table 1 finds the interpolated starts worse."
        " EmojiEval alone cannot: an interpolated state holds a true picture, the more the less"
        " noise is left, and so tells the teacher what to draw.",
        "",
        *markdown(head, rows),
    ]


def mismatch_verdicts(records: Records) -> list[str]:
    """Whether interpolated starts hurt, by window."""
    results = records["1-mismatch"]["results"]
    own, lines = correct_of(results["authentic"]), []
    for row in results["rows"]:
        change = paired_bootstrap(correct_of(row["interpolated"]), own)
        near = row["latent_distance"]
        lines.append(
            f"- Mismatch, {_window(row)}: a start from an interpolated state {hurts(change)} the"
            f" teacher's EmojiEval, {signed(change)}; such states are"
            f" {near['interpolated'] / max(near['authentic'], 1e-12):.2f} times as far from the"
            " teacher's as another sample of its own."
        )
    return lines


def _window(row: Mapping[str, Any]) -> str:
    return f"window {row['window'] + 1} (t = {row['t_hi']:g})"


def _frechets(row: Mapping[str, Any]) -> list[str]:
    return [f"{row['frechet_true']:.3f}", f"{row['frechet_teacher']:.3f}"]


def hurts(change: Interval) -> str:
    """A change of obedience in words."""
    if change.high < 0:
        return "hurts"
    return "helps" if change.low > 0 else "does not measurably change"


def scheduler_section(records: Records) -> list[str]:
    """Table 2."""
    lines = [
        "The stock grid against the rectified one, which puts the terminal 0 in before it spaces"
        " its points. The teacher is guided, the students are not. A star marks a grid that lacks"
        " edges of the student's windows: it was never taught to take such steps.",
    ]
    for name in scheduler_cells(records):
        record = records[name]
        rows = record["results"]["rows"]
        stock, rectified = (_by_steps(rows, name) for name in ("stock", "rectified"))
        lines += ["", f"**{record['label']}**", ""]
        lines += markdown(
            ["N", "stock", "rectified", "rectified - stock", "distance, stock", "rectified"],
            [_scheduler_row(steps, stock[steps], rectified[steps]) for steps in sorted(stock)],
        )
    return lines


def scheduler_verdicts(records: Records) -> list[str]:
    """What the rectified grid gives the teacher, by number of steps."""
    rows = records["2-scheduler-teacher"]["results"]["rows"]
    stock, rectified = (_by_steps(rows, name) for name in ("stock", "rectified"))
    gains = {
        steps: paired_bootstrap(correct_of(rectified[steps]), correct_of(stock[steps]))
        for steps in sorted(stock)
    }
    told = "; ".join(f"N = {steps}: {signed(change)}" for steps, change in gains.items())
    return [f"- The rectified grid against the stock one, teacher's EmojiEval: {told}."]


def _by_steps(rows: Sequence[Answer], scheduler: str) -> dict[int, Answer]:
    return {row["num_inference_steps"]: row for row in rows if row["scheduler"] == scheduler}


def scheduler_cells(records: Records) -> list[str]:
    """Cells of table 2, the teacher's first."""
    names = [name for name, record in records.items() if record["table"] == "2"]
    return sorted(names, key=lambda name: (name != "2-scheduler-teacher", name))


def _scheduler_row(steps: int, stock: Answer, rectified: Answer) -> list[str]:
    difference = paired_bootstrap(correct_of(rectified), correct_of(stock))
    return [
        str(steps),
        show(overall(stock)) + _star(stock),
        show(overall(rectified)) + _star(rectified),
        signed(difference),
        f"{stock['distance']['mean']:.3f}",
        f"{rectified['distance']['mean']:.3f}",
    ]


def _star(answer: Answer) -> str:
    return "" if answer["fits"] else " \\*"
