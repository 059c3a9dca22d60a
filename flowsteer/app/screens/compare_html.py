"""What the compare screen shows: cards, wipe, table. Pure functions of data."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Literal

from flowsteer.app.html import (
    escape,
    hint,
    image_html,
    png_data_uri,
    seconds_text,
    short_sigmas,
    status_html,
    subject,
    table_html,
    ticks_html,
)
from flowsteer.app.networks import link_text
from flowsteer.app.requests import planned_nfe
from flowsteer.app.snapshots import Comparison
from flowsteer.comparison_files import file_record, picture_file

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


def wipe_html(comparison: Comparison) -> str:
    """Two pictures on one stage, with a slider between them; `app.js` takes them from the cards."""
    columns = comparison.request.columns
    seeds = comparison.request.seeds
    student = next((i for i, c in enumerate(columns) if c.settings.student), len(columns) - 1)
    choices = [
        _select_html(name, label, [(c.key, c.title) for c in columns], chosen)
        for name, label, chosen in (("left", "Left", 0), ("right", "Right", student))
    ]
    noises = _select_html("seed", "Seed", [(str(seed), str(seed)) for seed in seeds], 0)
    return (
        '<section class="fs-wipe" aria-label="Wipe between two pictures"><h2>Wipe</h2>'
        f'<div class="fs-wipe-choices">{"".join(choices)}{noises}</div>'
        '<div class="fs-stage"><p class="fs-blank">Two pictures, one over the other: drag the line'
        " once they are drawn.</p>"
        '<img data-side="right" alt="" hidden><img data-side="left" alt="" hidden>'
        '<div class="fs-cut" aria-hidden="true"></div>'
        '<input type="range" min="0" max="100" step="1" value="50" aria-label="Wipe position"'
        ' aria-valuetext="left picture 50%"></div></section>'
    )


def _select_html(name: str, label: str, options: Sequence[tuple[str, str]], chosen: int) -> str:
    rows = "".join(
        f'<option value="{escape(value)}"{" selected" if index == chosen else ""}>{escape(text)}'
        "</option>"
        for index, (value, text) in enumerate(options)
    )
    select = f'<select data-fs-wipe="{name}" aria-label="{label}">{rows}</select>'
    return f"<label><span>{label}</span>{select}</label>"


def figures_table(
    comparison: Comparison, model: str, has_detector: bool, is_asked: bool = True
) -> str:
    """Every picture's figures, a row each, and what to do with them.

    Args:
        comparison: how far it is.
        model: its name.
        has_detector: whether there is a column for its verdict.
        is_asked: whether a visitor asked for it, so that the page's address should say it.
    """
    request = comparison.request
    head = ["Column", "Seed", "NFE", "Time (s)", "Distance"] + ["Detector"] * has_detector
    rows = []
    for column in request.columns:
        for seed in request.seeds:
            place = (column.key, seed)
            card, verdict = comparison.cards.get(place), comparison.verdicts.get(place)
            distance = comparison.distances.get(place)
            row = [
                escape(column.title),
                str(seed),
                str(planned_nfe(column) if card is None else card.nfe),
                f"{card.seconds:.2f}" if card else "–",
                "–" if distance is None else f"{distance:.3f}",
            ]
            if has_detector:
                row.append("–" if verdict is None else escape(_verdict_cell(verdict)))
            rows.append(row)
    table = table_html("Figures of every picture", head, rows)
    record = json.dumps(comparison_file(comparison, model)) if comparison.cards else ""
    disabled = "" if comparison.cards else " disabled"
    values = {
        "prompt": request.prompt,
        "seed": str(request.seeds[0]),
        "noises": str(len(request.seeds)),
        "columns": link_text(request.columns),
    }
    query = f' data-fs-query="{escape(json.dumps(values))}"' if is_asked else ""
    return (
        f'<section class="fs-figures" aria-label="Figures"{query}><h2>Figures</h2>{table}'
        '<div class="fs-actions"><button type="button" class="fs-button"'
        f' data-fs-zip="{escape(record)}"{disabled}>Download ZIP</button>'
        '<button type="button" class="fs-button" data-fs-link>Copy link</button>'
        "<p>The ZIP holds the pictures and <code>settings.json</code>, which"
        " <code>flowsteer compare --from</code> draws again.</p></div></section>"
    )


def _verdict_cell(verdict: Verdict) -> str:
    text = verdict_text(verdict)
    return text if verdict.correct is None else f"{text}; sees {verdict.seen}"


def comparison_file(comparison: Comparison, model: str) -> dict[str, Any]:
    """What `settings.json` in the ZIP says; `flowsteer compare --from` reads it."""
    request = comparison.request
    columns, cards = [], []
    for column in request.columns:
        own = comparison.cards_of(column.key)
        columns.append(replace(column, settings=own[0].column.settings) if own else column)
        for card in own:
            distance = comparison.distances.get((column.key, card.seed))
            cards.append(replace(card, distance=distance))
    return file_record(model, request.prompt, request.seeds, columns, cards)


def cards_record(comparison: Comparison) -> list[dict[str, Any]]:
    """The cards as JSON values for the endpoint, column by column."""
    records = []
    for column in comparison.request.columns:
        for card in comparison.cards_of(column.key):
            place = (column.key, card.seed)
            settings, verdict = card.column.settings, comparison.verdicts.get(place)
            records.append(
                {
                    "key": column.key,
                    "title": column.title,
                    "seed": card.seed,
                    "nfe": card.nfe,
                    "seconds": card.seconds,
                    "num_inference_steps": settings.num_inference_steps,
                    "guidance_scale": settings.guidance_scale,
                    "scheduler": settings.scheduler,
                    "student": settings.student,
                    "sigmas": list(card.sigmas),
                    "distance": comparison.distances.get(place),
                    "verdict": None if verdict is None else asdict(verdict),
                    "grid_mismatch": card.grid_mismatch,
                    "image": png_data_uri(card.image),
                }
            )
    return records
