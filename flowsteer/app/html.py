"""Small pieces of HTML that all screens share. Whatever a visitor typed passes through `escape`."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from flowsteer.app.desk import Waiting
from flowsteer.pictures import TEXT_KEY


def escape(text: object) -> str:
    """Text for HTML, safe also inside the page's `${}` and `{{}}` templates."""
    quoted = html.escape(str(text), quote=True)
    return quoted.replace("$", "&#36;").replace("{", "&#123;").replace("}", "&#125;")


def png_data_uri(picture: Image.Image, record: Mapping[str, Any] | None = None) -> str:
    """The picture as a lossless `data:` address, so that no temporary file is left behind.

    Args:
        picture: what to show.
        record: how it was made, for the PNG's text chunk.
    """
    text = None
    if record is not None:
        text = PngInfo()
        text.add_text(TEXT_KEY, json.dumps(record))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", pnginfo=text)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def image_html(picture: Image.Image, alt: str, source: str | None = None, more: str = "") -> str:
    """An `img` of a picture; `source` where its address is known already."""
    # sync: the browser paints the new picture at once instead of a blank frame
    return (
        f'<img src="{source or png_data_uri(picture)}" alt="{escape(alt)}" width="{picture.width}"'
        f' height="{picture.height}" decoding="sync"{more}>'
    )


def status_html(headline: str, detail: str = "", share: float | None = None) -> str:
    """The line that says what is happening; `share` of it is done, or None without a bar."""
    extra = f"<span>{escape(detail)}</span>" if detail else ""
    bar = ""
    if share is not None:
        bar = (
            f'<div class="fs-bar" aria-hidden="true"><i style="width:{100 * share:.0f}%"></i></div>'
        )
    return (
        '<div class="fs-status"><div role="status">'
        f"<strong>{escape(headline)}</strong>{extra}</div>{bar}</div>"
    )


def waiting_html(waiting: Waiting, is_loaded: bool) -> str:
    """The status line in line: how many come first."""
    if not is_loaded:
        return status_html("The model is loading.", "This happens once.")
    people = "1 request is" if waiting.ahead == 1 else f"{waiting.ahead} requests are"
    return status_html(f"You are number {waiting.ahead + 1} in line.", f"{people} before yours.")


def note_html(notes: Sequence[str]) -> str:
    """The line under the prompt: what the model will not read, or nothing."""
    return f'<p class="fs-note" role="note">{escape(" ".join(notes))}</p>'


def hint(term: str, meaning: str) -> str:
    """A term that tells its meaning to the pointer, to the keyboard and to screen readers."""
    return (
        f'<span class="fs-term" tabindex="0">{escape(term)}'
        f'<span class="fs-tip" role="tooltip">{escape(meaning)}</span></span>'
    )


def table_html(
    caption: str, head: Sequence[str], rows: Sequence[Sequence[str]], words: int = 1
) -> str:
    """A table whose columns sort at a click, by the first number in a cell or by its words.

    Args:
        caption: what it shows.
        head: plain text.
        rows: cells as HTML.
        words: how many columns, from the left, are words and not figures.
    """
    heads = "".join(
        f'<th scope="col" aria-sort="none"><button type="button" data-fs-sort>{escape(name)}'
        "</button></th>"
        for name in head
    )
    kinds = ["fs-words" if index < words else "fs-number" for index in range(len(head))]
    body = "".join(
        "<tr>"
        + "".join(f'<td class="{kind}">{cell}</td>' for kind, cell in zip(kinds, row, strict=True))
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="fs-scroll" tabindex="0" role="region" aria-label="{escape(caption)}">'
        f'<table class="fs-table"><caption>{escape(caption)}</caption>'
        f"<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def empty_html(headline: str, text: str) -> str:
    """What stands where nothing is yet."""
    return f'<div class="fs-empty"><strong>{escape(headline)}</strong><p>{escape(text)}</p></div>'


def seconds_text(seconds: float) -> str:
    """Such as "0.31 s"."""
    return f"{seconds:.2f}\N{NO-BREAK SPACE}s"


def shorten_text(text: str, width: int = 70) -> str:
    """Text of at most `width` characters, cut with an ellipsis."""
    return text if len(text) <= width else text[: width - 1].rstrip() + "…"


def subject(prompt: str, seeds: Sequence[int]) -> str:
    """What the pictures show, which the prompt's box may have moved on from."""
    numbers = f"Seed {seeds[0]}" if len(seeds) == 1 else f"Seeds {seeds[0]} to {seeds[-1]}"
    return f"{numbers}: “{shorten_text(prompt)}”"


def short_sigmas(sigmas: Sequence[float]) -> str:
    """All sigmas of a short grid; the ends of a long one."""
    shown = [f"{sigma:.3f}".rstrip("0").rstrip(".") for sigma in sigmas]
    if len(shown) > 6:
        shown = [*shown[:2], "…", *shown[-2:]]
    return " → ".join(shown)


def ticks_html(sigmas: Sequence[float]) -> str:
    """A grid as ticks on a line from noise (left) to picture (right)."""
    ticks = "".join(f'<i style="left:{100 * (1 - sigma):.2f}%"></i>' for sigma in sigmas)
    return f'<div class="fs-line" aria-hidden="true">{ticks}</div>'
