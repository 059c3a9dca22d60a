"""The house style of all figures: one palette, two themes, files that do not change by themselves.

Figures are `matplotlib.figure.Figure` objects without pyplot, so that nothing is drawn twice in a
notebook and nothing stays open.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from pathlib import Path
from typing import Any, Literal, ParamSpec

from cycler import cycler
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Theme = Literal["light", "dark"]
P = ParamSpec("P")
NOTEBOOK_DPI = 120
CSS_PIXELS_PER_INCH = 96
"""A page shows a figure at its size in inches, however many pixels it has."""

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C8C8C")
"""Okabe and Ito's colours, told apart with every kind of colour vision; C0, C1, ... in figures."""

_SHARED: dict[str, Any] = {
    "axes.prop_cycle": cycler(color=PALETTE),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": "medium",
    "font.size": 10.0,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "image.cmap": "cividis",
}


def _colours(ground: str, ink: str, faint: str) -> dict[str, Any]:
    inked = ("text.color", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color")
    return {
        "figure.facecolor": ground,
        "axes.facecolor": ground,
        "savefig.facecolor": ground,
        "axes.edgecolor": ink,
        "grid.color": faint,
        **dict.fromkeys(inked, ink),
    }


THEMES: dict[Theme, Any] = {  # matplotlib types its keys one by one
    "light": _SHARED | _colours("#ffffff", "#23211f", "#e2dfda"),
    "dark": _SHARED | _colours("#141413", "#ecebe8", "#45423f"),
}
_theme: ContextVar[Theme] = ContextVar("theme", default="light")


@contextmanager
def theme(name: Theme) -> Iterator[None]:
    """Figures that are made inside are light or dark.

    Raises:
        ValueError: if there is no such theme.
    """
    if name not in THEMES:
        raise ValueError(f"theme = {name!r} is unknown; use one of {', '.join(THEMES)}")
    token = _theme.set(name)
    try:
        yield
    finally:
        _theme.reset(token)


def themed(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Decorator of a function that makes a figure: it does so in the house style."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with rc_context(THEMES[_theme.get()]):
            return draw(*args, **kwargs)

    return drawn


class HouseFigure(Figure):
    """A figure that keeps the style it was made in, and that a notebook shows by itself."""

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self._style = THEMES[_theme.get()]

    def draw(self, renderer: Any) -> None:
        """Draw in the house style: colours such as C0 get their meaning only here."""
        with rc_context(self._style):
            super().draw(renderer)

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        png = io.BytesIO()
        self.savefig(png, format="png", dpi=NOTEBOOK_DPI)
        width, height = self.get_size_inches() * CSS_PIXELS_PER_INCH
        return png.getvalue(), {"width": round(width), "height": round(height)}


def new_panels(
    count: int, height: float = 3.2, width: float = 4.2, rows: int = 1
) -> tuple[Figure, list[Axes]]:
    """A figure of `rows` x `count` panels, each so many inches; the axes row by row."""
    figure = HouseFigure(figsize=(width * count, height * rows), layout="constrained")
    axes = figure.subplots(rows, count, squeeze=False)
    return figure, list(axes.flat)


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a figure in the format of the path's suffix; the same data give the same bytes."""
    # an SVG carries the date and random names of its parts unless told otherwise
    with rc_context({"svg.hashsalt": path.stem, "svg.fonttype": "none"}):
        metadata = {"Date": None} if path.suffix == ".svg" else None
        figure.savefig(path, metadata=metadata)
    return path
