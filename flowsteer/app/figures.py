"""Figures for the page: each in light and dark, of which the style sheet shows one."""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flowsteer.app.html import escape

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_one_at_a_time = threading.Lock()  # matplotlib's settings are the whole process's


def figure_html(draw: Callable[[], Figure], alt: str, inside: str = "") -> str:
    """A figure in both themes.

    Args:
        draw: makes it.
        alt: what it shows, for those who do not see it.
        inside: HTML to lay over it.
    """
    from matplotlib import rc_context

    from flowsteer.plots import theme
    from flowsteer.plots.style import THEMES

    images = []
    with _one_at_a_time:
        for name in THEMES:
            # colours such as "C0" are looked up when a figure is written, not when it is made
            with theme(name), rc_context(THEMES[name]):
                images.append(_image(name, _svg(draw()), alt))
    return f'<div class="fs-figure">{"".join(images)}{inside}</div>'


def written_figure_html(path: Path, alt: str) -> str:
    """A figure of `flowsteer.plots` that was written as SVG in its light theme, in both themes.

    Args:
        path: of the file.
        alt: what it shows, for those who do not see it.
    """
    from flowsteer.plots.style import THEMES

    text = path.read_text(encoding="utf-8")
    light = THEMES["light"]
    images = []
    for name, style in THEMES.items():
        themed = text.replace(f"fill: {light['figure.facecolor']}", "fill: none")
        for part in ("text.color", "grid.color"):
            themed = themed.replace(light[part], style[part])
        images.append(_image(name, themed.encode(), alt))
    return f'<div class="fs-figure">{"".join(images)}</div>'


def _image(theme: str, svg: bytes, alt: str) -> str:
    source = f"data:image/svg+xml;base64,{base64.b64encode(svg).decode('ascii')}"
    return f'<img class="fs-{theme}" src="{source}" alt="{escape(alt)}">'


def places_in(
    draw: Callable[[], Figure], points: Sequence[Sequence[float]]
) -> list[tuple[float, float]]:
    """Where points of a figure's first axes lie in it, as shares of its width and height.

    Args:
        draw: makes the figure.
        points: (n, 2) in the axes' units.
    """
    with _one_at_a_time:
        figure = draw()
        figure.draw_without_rendering()
        pixels = figure.axes[0].transData.transform([tuple(point) for point in points])
        width, height = figure.bbox.size
    return [(round(x / width, 4), round(y / height, 4)) for x, y in pixels.tolist()]


def _svg(figure: Figure) -> bytes:
    from matplotlib import rc_context

    buffer = io.BytesIO()
    with rc_context({"svg.hashsalt": "flowsteer"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return buffer.getvalue()
