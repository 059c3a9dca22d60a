"""What every explorer is: controls, a figure that follows them, and a line that says what it shows.

The state of an explorer is its traits, so that code can do what a hand does: `explorer.t = 0.5`
moves the slider and redraws. A redraw is put off for a moment and many changes share one, so that
a dragged slider never waits for figures that nobody will see.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Mapping
from typing import Any, cast

import ipywidgets
import traitlets
from matplotlib.figure import Figure

from flowsteer.plots import theme
from flowsteer.plots.style import CSS_PIXELS_PER_INCH, NOTEBOOK_DPI, Theme

DELAY = 0.04
"""Seconds for which changes are gathered before a redraw."""


class Explorer(ipywidgets.VBox):
    """Controls over a figure. A subclass has traits, `make_controls`, `draw` and `caption`.

    Args:
        traits: values of the subclass's traits, to begin with.

    Raises:
        traitlets.TraitError: at a value out of range, now or later.
    """

    look = traitlets.Enum(("light", "dark"), "light", help="the figure's ground")

    def __init__(self, **traits: Any):
        super().__init__()
        own = self.class_own_traits()
        if unknown := sorted(traits.keys() - own.keys() - {"look"}):
            raise ValueError(
                f"{type(self).__name__} has no {', '.join(unknown)}; use {', '.join(own)} or look"
            )
        self._figure: Figure | None = None
        self._pending: asyncio.Handle | None = None
        self.image = ipywidgets.Image(format="png")
        self.image.layout.max_width = "100%"
        self.text = ipywidgets.HTML()
        for name, value in traits.items():
            setattr(self, name, value)
        self.controls = dict(self.make_controls())
        for name, control in self.controls.items():
            control.style.description_width = "initial"
            traitlets.link((self, name), (control, "value"))
        row = ipywidgets.HBox(list(self.controls.values()))
        row.layout.flex_flow = "row wrap"
        self.children = [row, self.image, self.text]
        self.observe(self._changed, names=[*own, "look"])
        self._show()

    def make_controls(self) -> Mapping[str, ipywidgets.ValueWidget]:
        """Trait's name -> the control that shows and sets it, in reading order.

        Every control needs a `description`: it is read aloud, and names what the keys move.
        """
        raise NotImplementedError

    def draw(self) -> Figure:
        """The figure of the traits as they are."""
        raise NotImplementedError

    def caption(self) -> str:
        """One sentence of plain text with the figure's numbers; called after `draw`."""
        raise NotImplementedError

    @property
    def figure(self) -> Figure:
        """The current figure, up to date with the traits; as a cell's last line it stays put."""
        if self._figure is None:
            self._show()
        return cast(Figure, self._figure)

    def _changed(self, change: Any) -> None:
        self._figure = None
        if self._pending is not None:
            return  # it reads the traits when its turn comes
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # a plain script: `figure` draws when it is asked for
            return
        self._pending = loop.call_later(DELAY, self._show_later)

    def _show_later(self) -> None:
        self._pending = None
        if self._figure is not None:
            return
        try:
            self._show()
        except ValueError as error:  # what someone typed; nobody is there to catch it
            self.text.value = _paragraph(str(error))

    def _show(self) -> None:
        with theme(cast(Theme, self.look)):
            figure = self.draw()
        png = io.BytesIO()
        figure.savefig(png, format="png", dpi=NOTEBOOK_DPI)
        self._figure = figure
        self.image.layout.width = f"{figure.get_size_inches()[0] * CSS_PIXELS_PER_INCH:.0f}px"
        self.image.value = png.getvalue()
        self.text.value = _paragraph(self.caption())

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.controls)
        return f"{type(self).__name__}({values})"


def _paragraph(text: str) -> str:
    """Plain text as HTML that a screen reader announces when it changes."""
    safe = text.replace("&", "&amp;").replace("<", "&lt;")
    return f'<p role="status">{safe}</p>'
