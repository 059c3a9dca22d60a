"""The measured record of the emoji teacher and its students, as JSON and Markdown tables."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import flowsteer
from flowsteer.emoji.detector import Detector
from flowsteer.emoji.evaluation import judge, summarize
from flowsteer.emoji.prompts import EvalPrompt
from flowsteer.evaluation.study import (
    Result,
    Variant,
    evaluate_variants,
    pictures,
    prepare,
    sample,
    score,
    take_reference,
    undistilled_variants,
)
from flowsteer.loading import TEACHER_STEPS, pipeline_info
from flowsteer.measure.bootstrap import Interval, paired_bootstrap

GUIDANCE_SCALES = (2.0, 3.0, 4.0, 5.0, 6.0, 7.0)
RESULTS = Path(__file__).parents[1] / "emoji" / "results"
ENDPOINT_PROMPTS = 120  # 100 guided steps are dear, and this many fix the mean to about 2%

Say = Callable[[str], None]


def _print(line: str) -> None:
    print(line, flush=True)


def guidance_curve(
    pipe: Any,
    detector: Detector,
    prompts: Sequence[EvalPrompt],
    say: Say = _print,
    scales: Sequence[float] = GUIDANCE_SCALES,
) -> list[dict[str, float]]:
    """How well 28 steps obey the dev prompts at each scale; `best_scale` chooses from it."""
    setting = prepare(pipe, prompts)
    curve = []
    for scale in scales:
        latents = sample(pipe, setting, Variant("teacher", TEACHER_STEPS, scale))
        correct = judge(prompts, pictures(pipe, latents), detector)
        overall = summarize(prompts, correct).overall.mean
        say(f"guidance {scale:g}: {overall:.3f} of the dev prompts right")
        curve.append({"guidance_scale": scale, "overall": overall})
    return curve


def best_scale(curve: Sequence[dict[str, float]], num_prompts: int) -> float:
    """The lowest guidance scale within one standard error of the highest overall.

    Scales that this many prompts cannot tell apart are not equal: the higher one bends the paths
    more, so that 28 steps follow them less well.
    """
    best = max(row["overall"] for row in curve)
    least = best - math.sqrt(best * (1 - best) / num_prompts)
    return min(row["guidance_scale"] for row in curve if row["overall"] >= least)


def report_teacher(
    pipe: Any,
    detector: Detector,
    dev: Sequence[EvalPrompt],
    test: Sequence[EvalPrompt],
    say: Say = _print,
    curve: list[dict[str, float]] | None = None,
) -> dict[str, Any]:
    """Guidance chosen on dev prompts, then the teacher and all its few-step variants on test ones.

    The distance of a row is that to the teacher's 28 guided steps from the same noise; its endpoint
    distance is that to 100 steps of its own field.

    Raises:
        ValueError: if `pipe` is a student.
    """
    student = pipeline_info(pipe).student
    if student is not None:
        raise ValueError(
            f"the pipeline is the student {student.name!r}, not a teacher; give its teacher's, or"
            " measure the student with flowsteer evaluate"
        )
    if curve is None:
        curve = guidance_curve(pipe, detector, dev, say)
    scale = best_scale(curve, len(dev))
    setting = prepare(pipe, test)
    teacher = Variant("teacher, 28 steps", TEACHER_STEPS, scale)
    reference = take_reference(pipe, setting, teacher, detector)
    first = score(pipe, teacher, reference.latents, setting, detector, reference)
    say(table([first]))
    plain = replace(teacher, label="stock default", guidance_scale=7.0, scheduler="stock")
    variants = [plain, *undistilled_variants()]
    rows = []
    for row in evaluate_variants(
        pipe, variants, setting, detector, reference, endpoint_prompts=ENDPOINT_PROMPTS
    ):
        rows.append(row)
        say(table_row(row))
    few = rows[1:]
    return {
        "dev_guidance": curve,
        "guidance_scale": scale,
        "num_prompts": len(test),
        "teacher": first.to_json(),
        "stock_default": rows[0].to_json(),
        "undistilled": [row.to_json() for row in few],
        "made_on": made_on(),
    }


def report_student(
    teacher: Any,
    student: Any,
    detector: Detector,
    prompts: Sequence[EvalPrompt],
    undistilled: Sequence[Result] = (),
    say: Say = _print,
) -> dict[str, Any]:
    """A student beside its teacher's 28 guided steps and all undistilled variants of its length.

    Args:
        teacher: the teacher's pipeline.
        student: the student's, as `load_pipeline(student=...)` gives it.
        detector: the judge.
        prompts: to judge on.
        undistilled: the variants' results on these prompts, where they are known; rows of another
            length than the student's do not count. Without any they are sampled, which takes
            longer than the rest.
        say: where rows go as they come.

    Raises:
        ValueError: if `student` is no student's pipeline, or the grid lacks an edge of it.
    """
    taught = pipeline_info(student).student
    if taught is None:
        raise ValueError("the second pipeline is no student; load it with load_pipeline(student=…)")
    steps = taught.info.num_inference_steps
    own = Variant(f"student {taught.name}", steps)
    taught.info.check_grid(own.grid(student.scheduler.shift))
    setting = prepare(teacher, prompts)
    scale = pipeline_info(teacher).guidance_scale
    full = Variant("teacher, 28 steps", TEACHER_STEPS, scale)
    reference = take_reference(teacher, setting, full, detector)
    first = score(teacher, full, reference.latents, setting, detector, reference)
    say(table([first]))
    few = []
    known = [row for row in undistilled if row.variant.num_inference_steps == steps]
    rows = known or evaluate_variants(
        teacher, undistilled_variants(steps), setting, detector, reference
    )
    for row in rows:
        few.append(row)
        say(table_row(row))
    result = next(evaluate_variants(student, [own], setting, detector, reference))
    say(table_row(result))
    return {
        "num_prompts": len(prompts),
        "teacher": first.to_json(),
        "undistilled": [row.to_json() for row in few],
        "student": result.to_json(),
        "against": compare_rows(result, first, few),
        "made_on": made_on(),
    }


def compare_rows(student: Result, teacher: Result, few: Sequence[Result]) -> dict[str, Any]:
    """The student against the teacher, the best undistilled variant, and the nearest one."""
    best = max(few, key=lambda row: row.report.overall.mean)
    nearest = min(few, key=lambda row: row.distance.mean)
    gains = {row.variant.label: paired_bootstrap(student.correct, row.correct) for row in few}
    worst = min(gains.values(), key=lambda interval: interval.low)
    return {
        "share_of_teacher": _ratio(student.report.overall.mean, teacher.report.overall.mean),
        "best_undistilled": best.variant.label,
        "gain_over_best": vars(gains[best.variant.label]),
        "least_gain": vars(worst),
        "nearest_undistilled": nearest.variant.label,
        "distance_ratio": _ratio(student.distance.mean, nearest.distance.mean),
    }


def _ratio(value: float, whole: float) -> float | None:
    """Their ratio; None of nothing, such as the score of a teacher that is never right."""
    return value / whole if whole > 0 else None


def known_undistilled(prompts: Sequence[EvalPrompt]) -> list[Result]:
    """The undistilled variants of the bundled teacher on test prompts, from its shipped record."""
    record = json.loads((RESULTS / "teacher.json").read_text(encoding="utf-8"))
    return [Result.from_json(row, prompts) for row in record["undistilled"]]


def compare_lines(against: Mapping[str, Any]) -> str:
    """What `compare_rows` found, in three lines for people."""
    gain = Interval(**against["least_gain"])
    share, distance = (
        "undefined" if against[name] is None else f"{against[name]:.3f}"
        for name in ("share_of_teacher", "distance_ratio")
    )
    return "\n".join(
        [
            f"- share of the teacher's overall: {share}",
            f"- least gain over an undistilled row: {gain.mean:+.3f}"
            f" {gain.ends('[{:+.3f}, {:+.3f}]')}",
            f"- distance, as a share of the nearest undistilled row's: {distance}",
        ]
    )


def table(results: Sequence[Result]) -> str:
    """A Markdown table, one row a result."""
    tasks = list(results[0].report.tasks)
    head = ["variant", "NFE", "overall", *tasks, "distance", "endpoint", "Frechet"]
    lines = [_markdown(head), "|" + "---|" * len(head)]
    return "\n".join([*lines, *map(table_row, results)])


def table_row(row: Result) -> str:
    """One line of `table`."""
    overall = row.report.overall
    return _markdown(
        [
            row.variant.label,
            str(row.variant.nfe),
            f"{overall.mean:.3f} {overall.ends()}",
            *(f"{task.mean:.3f}" for task in row.report.tasks.values()),
            f"{row.distance.mean:.3f}",
            "" if row.endpoint_distance is None else f"{row.endpoint_distance:.3f}",
            "" if row.frechet is None else f"{row.frechet:.2f}",
        ]
    )


def _markdown(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def made_on() -> dict[str, str]:
    """Device and versions, to stand beside figures."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    return {"device": device, "torch": torch.__version__, "flowsteer": flowsteer.__version__}


def summary(teacher: dict[str, Any], students: Mapping[str, dict[str, Any]]) -> str:
    """The README's table: teacher, the best undistilled row of each scheduler, students.

    Args:
        teacher: what `report_teacher` gave.
        students: name -> what `report_student` gave for the bundled student.
    """
    few = teacher["undistilled"]
    plain = next(r for r in few if r["scheduler"] == "rectified" and r["guidance_scale"] == 1)
    best = [
        max((r for r in few if r["scheduler"] == name), key=_overall)
        for name in ("stock", "rectified")
    ]
    lines = [
        "| sampled by | NFE | EmojiEval | 95% interval | distance | Frechet |",
        "|---|---:|---:|---|---:|---:|",
    ]
    rows = [("teacher", row) for row in (teacher["teacher"], *best, plain)]
    rows += [(f"student `{name}`", record["student"]) for name, record in students.items()]
    for name, row in rows:
        overall = row["emoji_eval"]["overall"]
        scale = row["guidance_scale"]
        steps = row["num_inference_steps"]
        how = f"{name}, {steps} step{'' if steps == 1 else 's'}, {row['scheduler']}"
        cells = [
            how + (f", guidance {scale:g}" if scale != 1 else ", no guidance"),
            str(row["nfe"]),
            f"{overall['mean']:.3f}",
            f"{overall['low']:.3f} to {overall['high']:.3f}",
            f"{row['distance']['mean']:.3f}",
            f"{row['frechet']:.2f}",
        ]
        lines.append(_markdown(cells))
    return "\n".join(lines)


def _overall(row: dict[str, Any]) -> float:
    return row["emoji_eval"]["overall"]["mean"]
