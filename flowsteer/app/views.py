"""What the page shows, as HTML text: the cards, the status line and the notes.

Pure functions of data. Whatever a visitor typed passes through `escape`.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from PIL import Image

from flowsteer.app.comparator import Snapshot, planned_nfe

if TYPE_CHECKING:
    from flowsteer.comparing import Card, Column

State = Literal["empty", "waiting", "drawing", "done", "stopped"]
Role = Literal["reference", "teacher", "student"]

REASONS = {
    "teacher_28x2": "The picture to match: many small steps, each with guidance.",
    "teacher_4x2_stock": "The grid that diffusers ships. Its last step moves almost nothing.",
    "teacher_4x2_rectified": "The same cost, and no step is wasted.",
    "teacher_4x1_rectified": "The student's cost without its training: the honest baseline.",
    "student_4x1": "Taught to land where the guided teacher lands, in four calls.",
}


@dataclass(frozen=True)
class CardView:
    """One card at one moment.

    Args:
        column: what it is the picture of.
        role: "reference" for the first column.
        state: "done" with a `card`, any other without.
        card: the finished picture and its figures.
        steps_done: while drawing.
        prompt: for the picture's description.
    """

    column: Column
    role: Role
    state: State = "empty"
    card: Card | None = None
    steps_done: int = 0
    prompt: str = ""


def escape(text: object) -> str:
    """Text for HTML, safe also inside the page's `${}` and `{{}}` templates."""
    quoted = html.escape(str(text), quote=True)
    return quoted.replace("$", "&#36;").replace("{", "&#123;").replace("}", "&#125;")


def role_of(column: Column, index: int) -> Role:
    """What a column is in the comparison, by its place and student."""
    if index == 0:
        return "reference"
    return "teacher" if column.settings.student is None else "student"


def card_html(view: CardView) -> str:
    """A card: title, picture or placeholder, figures, sigma grid, and why it is here."""
    title, _, cost = view.column.title.partition(", ")
    return (
        f'<article class="fs-card" data-key="{escape(view.column.key)}" data-role="{view.role}"'
        f' data-state="{view.state}">'
        f"<header><h2><span>{escape(title)}</span> {escape(cost)}</h2></header>"
        f"{_picture_html(view)}{_figures_html(view)}{_sigmas_html(view)}"
        f'<p class="fs-why">{escape(REASONS.get(view.column.key, ""))}</p>'
        "</article>"
    )


def _picture_html(view: CardView) -> str:
    if view.card is not None:
        alt = escape(f"{view.column.title}: {view.prompt}")
        source = png_data_uri(view.card.image)
        # sync: the browser paints the new picture at once instead of a blank frame
        return f'<div class="fs-picture"><img src="{source}" alt="{alt}" decoding="sync"></div>'
    text, bar = {"waiting": "Waiting", "stopped": "Stopped"}.get(view.state, ""), ""
    if view.state == "drawing":
        steps = view.column.settings.num_inference_steps or 1
        text = f"Step {min(view.steps_done + 1, steps)} of {steps}"
        share = 100 * view.steps_done / steps
        bar = f'<div class="fs-bar"><i style="width:{share:.0f}%"></i></div>'
    return f'<div class="fs-picture fs-blank"><span>{text}</span>{bar}</div>'


def png_data_uri(picture: Image.Image) -> str:
    """The picture as a lossless `data:` address, so that no temporary file is left behind."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _figures_html(view: CardView) -> str:
    card = view.card
    scale = (view.column if card is None else card.column).settings.guidance_scale
    guidance = "–" if scale is None else "none" if scale == 1 else f"{scale:g}"
    rows = (
        ("NFE", "Network calls", planned_nfe(view.column) if card is None else card.nfe),
        ("Time", "Sampling and decoding on this machine", _seconds(card.seconds) if card else "–"),
        ("Guidance", "Scale of classifier-free guidance", guidance),
        ("Distance", "To the reference picture; 0 is the same", _distance(view)),
    )
    cells = "".join(
        f'<div><dt title="{escape(hint)}">{name}</dt><dd>{value}</dd></div>'
        for name, hint, value in rows
    )
    return f"<dl>{cells}</dl>"


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f}\N{NO-BREAK SPACE}s"


def _distance(view: CardView) -> str:
    if view.role == "reference":
        return "<small>reference</small>"
    if view.card is None or view.card.distance is None:
        return "–"
    return f"{view.card.distance:.3f}"


def _sigmas_html(view: CardView) -> str:
    """The grid as ticks on a line from noise (left) to picture (right), and as numbers."""
    sigmas = view.card.sigmas if view.card else ()
    ticks = "".join(f'<i style="left:{100 * (1 - sigma):.2f}%"></i>' for sigma in sigmas)
    mismatch = ""
    if view.card and view.card.grid_mismatch:
        mismatch = '<p class="fs-mismatch">Grid mismatch: edges of the student are missing.</p>'
    full = escape(", ".join(f"{sigma:.4g}" for sigma in sigmas))
    return (
        '<div class="fs-sigmas"><h3>Sigma grid</h3>'
        f'<p title="{full}">{escape(short_sigmas(sigmas)) or "–"}</p>'
        f'<div class="fs-line" aria-hidden="true">{ticks}</div>{mismatch}</div>'
    )


def short_sigmas(sigmas: Sequence[float]) -> str:
    """All sigmas of a short grid; the ends of a long one."""
    shown = [f"{sigma:.3f}".rstrip("0").rstrip(".") for sigma in sigmas]
    if len(shown) > 6:
        shown = [*shown[:2], "…", *shown[-2:]]
    return " → ".join(shown)


def status_html(headline: str, detail: str = "") -> str:
    """The line that says what is happening."""
    extra = f"<span>{escape(detail)}</span>" if detail else ""
    return f'<div class="fs-status" role="status"><strong>{escape(headline)}</strong>{extra}</div>'


def note_html(notes: Sequence[str]) -> str:
    """The line under the prompt: what the model will not read, or nothing."""
    return f'<p class="fs-note" role="note">{escape(" ".join(notes))}</p>'


def progress_html(columns: Sequence[Column], snapshot: Snapshot, prompt: str, seed: int) -> str:
    """The status line while drawing."""
    titles = {column.key: column.title for column in columns}
    ready = f"{len(snapshot.cards)} of {len(columns)} pictures."
    drawing = f"Drawing: {titles[snapshot.drawing]}." if snapshot.drawing else ""
    return status_html(ready, drawing or subject(prompt, seed))


def ending_html(columns: Sequence[Column], snapshot: Snapshot, prompt: str, seed: int) -> str:
    """The status line when a comparison has ended: what it cost, or that it was stopped."""
    if len(snapshot.cards) < len(columns):
        drawn = f"{len(snapshot.cards)} of {len(columns)}"
        return status_html(f"Stopped after {drawn} pictures.", subject(prompt, seed))
    reference = snapshot.cards[columns[0].key]
    students = [card for card in snapshot.cards.values() if card.column.settings.student]
    if not students:
        return status_html("All pictures are ready.", subject(prompt, seed))
    student = students[0]
    return status_html(
        f"{student.nfe} network calls in {_seconds(student.seconds)} instead of {reference.nfe} in"
        f" {_seconds(reference.seconds)}: {reference.seconds / student.seconds:.1f} times faster.",
        subject(prompt, seed),
    )


def subject(prompt: str, seed: int) -> str:
    """What the pictures show, which the prompt's box may have moved on from."""
    return f"Seed {seed}: “{shorten_text(prompt)}”"


def shorten_text(text: str, width: int = 70) -> str:
    """Text of at most `width` characters, cut with an ellipsis."""
    return text if len(text) <= width else text[: width - 1].rstrip() + "…"
