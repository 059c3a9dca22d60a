"""The form in which a visitor chooses the columns of a comparison.

Plain form fields, so that the keyboard and screen readers know them; `app.js` adds and removes rows
and reads the form as the text of a link, which the server checks.
"""

from __future__ import annotations

from collections.abc import Sequence

from flowsteer.app.html import escape
from flowsteer.app.networks import (
    MISMATCH,
    MOST_COLUMNS,
    MOST_STEPS,
    Choices,
    Network,
    link_text,
)
from flowsteer.comparing import Column

SCHEDULERS = {
    "rectified": "rectified",
    "stock": "stock",
    f"rectified{MISMATCH}": "rectified, mismatch",
    f"stock{MISMATCH}": "stock, mismatch",
}
SCHEDULER_HELP = "With mismatch, a student's grid may lack edges of the windows it was taught on"
GUIDANCE_HELP = "Scale of classifier-free guidance; 1 is none, empty is the network's own"


def columns_form(choices: Choices, columns: Sequence[Column], is_open: bool = False) -> str:
    """The form, showing these columns."""
    presets = "".join(
        f'<button type="button" class="fs-chip" data-fs-preset="{escape(text)}">{escape(name)}'
        "</button>"
        for name, text in choices.presets().items()
    )
    rows = "".join(_row(choices, column) for column in columns)
    return (
        f'<details class="fs-columns" data-most="{MOST_COLUMNS}"{" open" if is_open else ""}>'
        f"<summary>Columns<span data-fs-summary>{escape(summary(columns))}</span></summary>"
        f'<div class="fs-presets" role="group" aria-label="Ready-made columns">{presets}</div>'
        f'<div class="fs-rows">{rows}</div>'
        '<button type="button" class="fs-chip" data-fs-add>Add a column</button>'
        f"<template>{_row(choices, columns[-1])}</template></details>"
    )


def summary(columns: Sequence[Column]) -> str:
    """The columns on one line."""
    return " · ".join(column.title for column in columns)


def columns_text(columns: Sequence[Column]) -> str:
    """The text of a link, as the form reads back."""
    return link_text(columns)


def _row(choices: Choices, column: Column) -> str:
    key, steps, scheduler, guidance = column.key.rsplit("-", 3)
    networks = "".join(_option(network, key) for network in choices.networks.values())
    grids = "".join(
        f'<option value="{value}"{" selected" if value == scheduler else ""}>{name}</option>'
        for value, name in SCHEDULERS.items()
    )
    scale = "" if guidance == "auto" else guidance
    return (
        '<fieldset class="fs-row" data-fs-row><legend class="fs-hidden">Column</legend>'
        "<label><span>Network</span>"
        f'<select data-fs="network" aria-label="Network">{networks}</select></label>'
        f'<label><span>Steps</span><input data-fs="steps" type="number" min="1" max="{MOST_STEPS}"'
        f' step="1" value="{escape(steps)}"></label>'
        f'<label title="{SCHEDULER_HELP}"><span>Scheduler</span>'
        f'<select data-fs="scheduler" aria-label="Scheduler">{grids}</select></label>'
        f'<label title="{GUIDANCE_HELP}"><span>Guidance</span><input data-fs="guidance"'
        f' type="number" min="1" max="100" step="any" placeholder="auto" value="{escape(scale)}">'
        "</label>"
        '<button type="button" class="fs-remove" data-fs-remove aria-label="Remove this column">'
        '<span aria-hidden="true">×</span></button></fieldset>'
    )


def _option(network: Network, chosen: str) -> str:
    selected = " selected" if network.key == chosen else ""
    guidance = "" if network.guided else "1"
    return (
        f'<option value="{escape(network.key)}" data-steps="{network.steps}"'
        f' data-guidance="{guidance}"{selected}>{escape(network.title)}</option>'
    )
