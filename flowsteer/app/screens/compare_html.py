"""What the compare screen shows: cards, wipe, table. Pure functions of data."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from flowsteer.app.html import (
    escape,
    hint,
    image_html,
    seconds_text,
    short_sigmas,
    status_html,
    subject,
    ticks_html,
)
from flowsteer.app.requests import planned_nfe
from flowsteer.app.snapshots import Comparison
from flowsteer.comparison_files import picture_file

if TYPE_CHECKING:
    from flowsteer.app.verdicts import Verdict
    from flowsteer.comparing import Card, Column

State = Literal["empty", "waiting", "stopped"]
TERMS = {
    "NFE": "Network calls for one picture. A guided step calls the network twice, with the prompt"
    " and without it, so 28 guided steps are 56 calls.",
    "Time": "Sampling and decoding of one picture on this machine, the mean over the noises.",
    "Guidance": "How far a picture is pushed towards the prompt. A student has learnt it and needs"
    " no second call.",
    "Distance": "Relative L2 of the latents to those of the teacher's 28 steps from the same noise,"
    " the mean over the noises. 0 is the same picture, 1 as far off as a blank one.",
    "Detector": "A small detector looks for what the prompt names: the things, how many, their"
    " style, place and background. Size is not judged.",
    "Sigma grid": "The share of noise left after each step, from 1 (only noise) to 0 (the picture)."
    " The ticks show where the steps land.",
}


def card_html(comparison: Comparison, column: Column, state: State, has_detector: bool) -> str:
    """A card: title, pictures or placeholders, figures, sigma grid, and why it is here.

    Args:
        comparison: how far it is.
        column: the card's.
        state: of pictures that are not there: "empty", "waiting" or "stopped".
        has_detector: whether there is a line for its verdict.
    """
    role = role_of(comparison, column)
    title, _, cost = column.title.partition(", ")
    seeds = comparison.request.seeds
    shots = "".join(_shot_html(comparison, column, seed, state) for seed in seeds)
    done = len(comparison.cards_of(column.key)) == len(seeds)
    shown = "done" if done else _state(comparison, column, state)
    return (
        f'<article class="fs-card" data-key="{escape(column.key)}" data-role="{role}"'
        f' data-state="{shown}">'
        f"<header><h2><span>{escape(title)}</span> {escape(cost)}</h2></header>"
        f'<div class="fs-shots" data-count="{len(seeds)}">{shots}</div>'
        f"{_figures_html(comparison, column, has_detector)}{_sigmas_html(comparison, column)}"
        f'<p class="fs-why">{escape(reason(column, role))}</p></article>'
    )


def role_of(comparison: Comparison, column: Column) -> str:
    """What a column is in a comparison."""
    if column.settings.student is not None:
        return "student"
    full = column.settings.num_inference_steps == 28 and column.settings.scheduler == "rectified"
    if column.key in comparison.references or (full and column.settings.guidance_scale is None):
        return "reference"
    return "teacher"


def reason(column: Column, role: str) -> str:
    """Why one looks at such a column."""
    settings = column.settings
    if role == "reference":
        return "The picture to match: many small steps, each with guidance."
    if role == "student":
        return "Taught to land where the guided teacher lands, without guidance."
    if settings.scheduler == "stock":
        return "The grid that diffusers ships. Its last step moves almost nothing."
    if settings.guidance_scale == 1.0:
        return "A student's cost without its training: the honest baseline."
    return "The teacher with fewer calls, and no step wasted."


def _state(comparison: Comparison, column: Column, state: State) -> str:
    drawing = comparison.drawing
    is_drawing = state == "waiting" and drawing is not None and drawing[0] == column.key
    return "drawing" if is_drawing else state


def _shot_html(comparison: Comparison, column: Column, seed: int, state: State) -> str:
    card = comparison.cards.get((column.key, seed))
    if card is None:
        drawing = state == "waiting" and comparison.drawing == (column.key, seed)
        words = (
            "Drawing" if drawing else {"waiting": "Waiting", "stopped": "Stopped"}.get(state, "")
        )
        busy = ' data-busy=""' if drawing else ""
        return f'<div class="fs-shot fs-blank" data-seed="{seed}"{busy}><span>{words}</span></div>'
    name = picture_file(column, seed)
    alt = f"{column.title}: {comparison.request.prompt}"
    if len(comparison.request.seeds) > 1:
        alt += f", seed {seed}"
    picture = image_html(card.image, alt, more=f' data-file="{escape(name)}"')
    verdict = comparison.verdicts.get((column.key, seed))
    badge = "" if verdict is None else _badge_html(verdict)
    return f'<div class="fs-shot" data-seed="{seed}">{picture}{badge}</div>'


def _badge_html(verdict: Verdict) -> str:
    if verdict.correct is None:
        return ""
    kind, sign = ("right", "✓") if verdict.correct else ("wrong", "✗")
    return (
        f'<span class="fs-badge" data-verdict="{kind}" title="{escape(verdict_text(verdict))}"'
        f' aria-hidden="true">{sign}</span>'
    )


def verdict_text(verdict: Verdict) -> str:
    """A verdict in words."""
    if verdict.correct is None:
        return f"Sees {verdict.seen}"
    if verdict.correct:
        return "As asked"
    return f"Wrong: {verdict.problem}"


def _figures_html(comparison: Comparison, column: Column, has_detector: bool) -> str:
    cards = comparison.cards_of(column.key)
    rows = [
        ("NFE", str(cards[0].nfe if cards else planned_nfe(column))),
        ("Time", seconds_text(statistics.fmean(c.seconds for c in cards)) if cards else "–"),
        ("Guidance", _guidance(column, cards)),
        ("Distance", _distance(comparison, column)),
    ]
    if has_detector:
        rows.append(("Detector", _verdicts(comparison, column)))
    cells = "".join(
        f'<div data-figure="{name.lower()}"><dt>{hint(name, TERMS[name])}</dt>'
        f"<dd>{value}</dd></div>"
        for name, value in rows
    )
    return f"<dl>{cells}</dl>"


def _guidance(column: Column, cards: Sequence[Card]) -> str:
    scale = (cards[0].column if cards else column).settings.guidance_scale
    return "auto" if scale is None else "none" if scale == 1 else f"{scale:g}"


def _distance(comparison: Comparison, column: Column) -> str:
    if role_of(comparison, column) == "reference":
        return "<small>reference</small>"
    places = [(column.key, seed) for seed in comparison.request.seeds]
    known = [comparison.distances[place] for place in places if place in comparison.distances]
    return f"{statistics.fmean(known):.3f}" if known else "–"


def _verdicts(comparison: Comparison, column: Column) -> str:
    places = [(column.key, seed) for seed in comparison.request.seeds]
    found = [comparison.verdicts[place] for place in places if place in comparison.verdicts]
    if not found:
        return "<small>–</small>"
    judged = [verdict for verdict in found if verdict.correct is not None]
    if len(found) == 1:
        return f"<small>{escape(verdict_text(found[0]))}</small>"
    if not judged:
        return "<small>sees, but cannot judge; see the table</small>"
    right = sum(bool(verdict.correct) for verdict in judged)
    return f"<small>{right} of {len(judged)} as asked</small>"


def _sigmas_html(comparison: Comparison, column: Column) -> str:
    cards = comparison.cards_of(column.key)
    sigmas = cards[0].sigmas if cards else ()
    mismatch = ""
    if cards and cards[0].grid_mismatch:
        mismatch = '<p class="fs-mismatch">Grid mismatch: edges of the student are missing.</p>'
    full = escape(", ".join(f"{sigma:.4g}" for sigma in sigmas))
    return (
        f'<div class="fs-sigmas"><h3>{hint("Sigma grid", TERMS["Sigma grid"])}</h3>'
        f'<p title="{full}">{escape(short_sigmas(sigmas)) or "–"}</p>'
        f"{ticks_html(sigmas)}{mismatch}</div>"
    )


def progress_html(comparison: Comparison) -> str:
    """The status line while drawing: which picture, and how far all are, in network calls."""
    request = comparison.request
    noises = len(request.seeds)
    total = noises * sum(planned_nfe(column) for column in request.columns)
    calls: float = sum(card.nfe for card in comparison.cards.values())
    ready = f"{len(comparison.cards)} of {noises * len(request.columns)} pictures."
    if comparison.drawing is None:
        return status_html(ready, subject(request.prompt, request.seeds), 1.0)
    key, _ = comparison.drawing
    column = next((column for column in request.columns if column.key == key), None)
    if column is None:
        doing = "Measuring: the teacher's 28 steps, which no column shows."
    else:
        steps = column.settings.num_inference_steps or 1
        doing = f"Drawing: {column.title}."
        calls += planned_nfe(column) * min(comparison.steps_done / steps, 1)
    return status_html(ready, doing, min(calls / max(total, 1), 1.0))


def ending_html(comparison: Comparison) -> str:
    """The status line when a comparison has ended: what it cost, or that it was stopped."""
    request = comparison.request
    what = subject(request.prompt, request.seeds)
    wanted = len(request.columns) * len(request.seeds)
    if len(comparison.cards) < wanted:
        return status_html(f"Stopped after {len(comparison.cards)} of {wanted} pictures.", what)
    full = [c for k in comparison.references for c in comparison.cards_of(k)]
    students = [c.key for c in request.columns if c.settings.student is not None]
    if not full or not students:
        return status_html("All pictures are ready.", what)
    quick = comparison.cards_of(students[0])
    long, short = (statistics.fmean(card.seconds for card in cards) for cards in (full, quick))
    return status_html(
        f"{quick[0].nfe} network calls in {seconds_text(short)} instead of {full[0].nfe} in"
        f" {seconds_text(long)}: {long / short:.1f} times faster.",
        what,
    )
