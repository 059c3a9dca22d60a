"""Below the cards of a comparison: the wipe, the table, and what leaves the page as data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from flowsteer.app.html import escape, png_data_uri, table_html
from flowsteer.app.networks import link_text
from flowsteer.app.requests import planned_nfe
from flowsteer.app.screens.compare_html import verdict_text
from flowsteer.app.snapshots import Comparison
from flowsteer.comparison_files import file_record

if TYPE_CHECKING:
    from flowsteer.app.verdicts import Verdict


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


def cards_record(comparison: Comparison, images: bool = True) -> list[dict[str, Any]]:
    """The cards as JSON values for the endpoint, column by column, with or without pictures."""
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
                    "image": png_data_uri(card.image) if images else None,
                }
            )
    return records
