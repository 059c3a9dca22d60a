"""report.md: what the cells that are done say, whichever they are."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from flowsteer.files import write_text
from flowsteer.reproduce.ablation import (
    ablation_section,
    beyond_section,
    equal_samples,
    runs_of,
    tuning_section,
    verdicts,
)
from flowsteer.reproduce.cells import Cell
from flowsteer.reproduce.presets import TABLES
from flowsteer.reproduce.rollout import solver_section
from flowsteer.reproduce.sheets import write_sheet
from flowsteer.reproduce.store import Store
from flowsteer.reproduce.tables import (
    Records,
    best_undistilled,
    markdown,
    mismatch_section,
    mismatch_verdicts,
    scheduler_section,
    scheduler_verdicts,
    show,
    teacher_scores,
    variants_section,
)

REPORT = "report.md"
MEGABYTE = 1e6
ON_DEV = ("tuning", "5")
"""Tables of choices, made on dev prompts."""
Section = Callable[[Records], list[str]]
SECTIONS: dict[str, Section] = {
    "0": variants_section,
    "1": mismatch_section,
    "2": scheduler_section,
    "3": ablation_section,
    "4": beyond_section,
    "5": solver_section,
}
PLOTS = {
    "1": ("mismatch",),
    "2": ("scheduler",),
    "3": ("ablation", "time", "curves"),
    "5": ("solvers",),
}


def write_report(store: Store, planned: Sequence[Cell], rates: Mapping[str, float]) -> Path:
    """Write report.md, plots and the picture sheet of what is done.

    Without matplotlib the report has no plots, and a warning says how to get them.

    Args:
        store: the folder.
        planned: all cells that a complete reproduction has.
        rates: learning rates that tuning has chosen, by row.

    Returns:
        The report.

    Raises:
        ValueError: if no cell is done, or one's file is damaged.
    """
    records = store.read_all()
    if not records:
        raise ValueError(
            f"{store.cells} has no cell yet; run flowsteer reproduce without --report_only"
        )
    plots: dict[str, Path] = {}
    try:
        from flowsteer.reproduce.figures import write_plots

        plots = write_plots(records, store.folder / "plots")
    except ImportError as error:
        warnings.warn(
            f"the report has no plots, which need matplotlib ({error}):"
            ' pip install "flowsteer[train]"',
            stacklevel=2,
        )
    sheet = write_sheet(store, records, store.folder / "plots" / "pictures.png")
    if sheet is not None:
        plots["pictures"] = sheet
    path = store.folder / REPORT
    write_text(path, "\n".join(report_lines(store.folder, records, planned, rates, plots)) + "\n")
    return path


def report_lines(
    folder: Path,
    records: Records,
    planned: Sequence[Cell],
    rates: Mapping[str, float],
    plots: Mapping[str, Path],
) -> list[str]:
    """The report, line by line."""
    lines = ["# FlowSteer on the emoji teacher", "", *_preface(records), ""]
    if short := summary_lines(records):
        lines += ["## In short", "", *short, ""]
    lines += ["## What is done", "", *done_section(records, planned)]
    for table, title in TABLES.items():
        present = any(record["table"] == table for record in records.values())
        if table == "tuning":
            lines += ["", "## Learning rates", "", *tuning_section(records, rates)]
        elif present and table in SECTIONS:
            lines += ["", f"## {table}. {title[0].upper()}{title[1:]}", ""]
            lines += SECTIONS[table](records)
            for name in PLOTS.get(table, ()):
                if name in plots:
                    lines += ["", f"![{name}]({plots[name].relative_to(folder).as_posix()})"]
            if table == "3":
                lines += ["", *cost_section(records)]
    if "pictures" in plots:
        where = plots["pictures"].relative_to(folder).as_posix()
        lines += ["", "## Pictures", "", "From the same noises, the first test prompts.", ""]
        lines += [f"![pictures]({where})"]
    return lines


def summary_lines(records: Records) -> list[str]:
    """What is decided: the ablation at equal student samples, mismatch, scheduler."""
    lines = []
    if runs := runs_of(records):
        lines += verdicts(equal_samples(runs), records)
    if "1-mismatch" in records:
        lines += mismatch_verdicts(records)
    if "2-scheduler-teacher" in records:
        lines += scheduler_verdicts(records)
    return lines


def _preface(records: Records) -> list[str]:
    devices = sorted({record["made_on"]["device"] for record in records.values()})
    versions = sorted({record["made_on"]["torch"] for record in records.values()})
    counts = {r["config"]["num_prompts"] for r in records.values() if r["table"] not in ON_DEV}
    prompts = ", ".join(f"{count:,}" for count in sorted(counts))
    models = ", ".join(sorted({record["config"]["model"] for record in records.values()}))
    lines = [
        "Written by `flowsteer reproduce` from `cells/*.json`. EmojiEval is the share of"
        f" {prompts} test prompts that a picture obeys, distance the relative L2 of final latents"
        " to the teacher's 28 guided steps from the same noise, Frechet that of detector features"
        " to the teacher's pictures. Means stand with 95% bootstrap intervals; a difference holds"
        " where its interval excludes 0. The paper's figures are of SD3-Medium and other metrics:"
        " they stand beside ours for the order, never for the value.",
        "",
        f"Teacher: {models}. Made on {', '.join(devices)}; torch {', '.join(versions)}.",
    ]
    if len(devices) > 1:
        lines += ["", "Times of different devices do not compare; see the JSON of each cell."]
    if "tiny" in models:
        lines += ["", "**This teacher has random weights: nothing below says anything.**"]
    return lines


def done_section(records: Records, planned: Sequence[Cell]) -> list[str]:
    """Which cells there are, with how many seeds, and which are missing."""
    rows = []
    for table in TABLES:
        wanted = [cell.name for cell in planned if cell.table == table]
        have = [name for name, record in records.items() if record["table"] == table]
        if not wanted and not have:
            continue
        missing = [name for name in wanted if name not in records]
        rows.append([f"{table}. {TABLES[table]}", f"{len(have)}", ", ".join(missing) or "none"])
    lines = markdown(["table", "cells done", "missing"], rows)
    if runs := runs_of(records):
        seeds = [f"{run.label}: {', '.join(map(str, run.seeds))}" for run in runs]
        lines += ["", f"Training seeds of the ablation: {'; '.join(seeds)}."]
    return lines


def cost_section(records: Records) -> list[str]:
    """What each row of the ablation costs."""
    body = []
    for run in runs_of(records):
        peaks = [r["results"]["peak_memory"] for r in run.records.values()]
        known = [peak for peak in peaks if peak is not None]
        devices = sorted({record["made_on"]["device"] for record in run.records.values()})
        flags = next(iter(run.records.values()))["config"]["flags"]
        body.append(
            [
                run.label,
                f"{run.mean('seconds'):.1f}",
                f"{run.mean('samples_per_second'):,.0f}",
                f"{max(known) / MEGABYTE:,.0f}" if known else "",
                f"{sum(record['wall_seconds'] for record in run.records.values()):.0f}",
                f"{flags['learning_rate']:g}",
                ", ".join(devices),
            ]
        )
    head = ["row", "training s", "samples/s", "peak MB", "wall s, all seeds", "rate", "device"]
    return [
        "Costs of a run: training time is its steps times their median time, so that compiling,"
        " checkpoints and pauses do not count; a sample is one prompt in one window; the peak is"
        " the GPU's while training, or the process's on a CPU; wall time holds evaluation too.",
        "",
        *markdown(head, body),
    ]


def readme_table(records: Records) -> str:
    """The ablation in short, for the README: teacher, best undistilled row, and every row."""
    body = []
    for scores in (teacher_scores(records), best_undistilled(records)):
        if scores is not None:
            body.append([scores.label, "", show(scores.emoji_eval), show(scores.distance)])
    for run in runs_of(records):
        scores = run.at()
        body.append(
            [run.label, str(len(scores.seeds)), show(scores.emoji_eval), show(scores.distance)]
        )
    return "\n".join(markdown(["row", "seeds", "EmojiEval", "distance"], body))
