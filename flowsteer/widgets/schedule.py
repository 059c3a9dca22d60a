"""Where the steps of a sampler fall: the stock grid and the rectified one, side by side."""

from __future__ import annotations

from collections.abc import Mapping

import ipywidgets
import traitlets
from matplotlib.figure import Figure
from torch import Tensor

from flowsteer.flow import GRIDS, format_grid
from flowsteer.plots.grids import staircase_figure
from flowsteer.widgets.base import Explorer

LONGEST = 8
"""Steps up to which a caption spells the grids out."""


class ScheduleExplorer(Explorer):
    """The staircase from noise to data on both grids, by shift and number of steps.

    `ScheduleExplorer()` is all it takes; every trait below may be given, and set later.
    """

    shift = traitlets.Float(3.0, min=0.1, max=20.0, help="1 means none; SD3 uses 3")
    num_steps = traitlets.Int(4, min=1, max=50)

    def make_controls(self) -> Mapping[str, ipywidgets.ValueWidget]:
        """Two sliders."""
        return {
            "shift": ipywidgets.FloatSlider(min=1, max=12, step=0.5, description="shift"),
            "num_steps": ipywidgets.IntSlider(min=1, max=28, description="steps N"),
        }

    def draw(self) -> Figure:
        """Both staircases, and what each call covers."""
        return staircase_figure(
            {name: grid(self.num_steps, self.shift) for name, grid in GRIDS.items()}
        )

    def caption(self) -> str:
        """What the last call covers, and the times if they fit a line."""
        grids = self._grids()
        last = ", ".join(f"{grid[-2].item():.1%} ({name})" for name, grid in grids.items())
        text = f"The last call covers of the path: {last}."
        if self.num_steps <= LONGEST:
            text += "".join(f" {name}: {format_grid(grid)}." for name, grid in grids.items())
        return text

    def _grids(self) -> dict[str, Tensor]:
        return {name: grid(self.num_steps, self.shift) for name, grid in GRIDS.items()}
