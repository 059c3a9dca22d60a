"""The mismatch by hand: number of windows, edge and guidance, and what they do to both clouds."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import ipywidgets
import traitlets
from matplotlib.figure import Figure

from flowsteer.clouds import Clouds, mixture_clouds
from flowsteer.plots.mismatch import clouds_figure
from flowsteer.widgets.base import Explorer


class MismatchExplorer(Explorer):
    """Authentic and interpolated states at the edges of K windows.

    Without arguments it shows a guided teacher in the plane, with a slider for its guidance.

    Args:
        clouds: what to show instead, such as latents seen in the teacher's plane.
        traits: `num_windows`, `edge`, `guidance_scale` (in the plane alone) and `look`.

    Raises:
        traitlets.TraitError: at a value out of range.
    """

    num_windows = traitlets.Int(4, min=2, help="K")
    edge = traitlets.Int(1, min=1, help="inner edge, noisiest first; at most K - 1")
    guidance_scale = traitlets.Float(4.0, min=1, max=10, help="of the teacher")

    def __init__(self, clouds: Clouds | None = None, **traits: Any):
        self._given = clouds
        super().__init__(**traits)
        self.observe(self._limit_edge, names="num_windows")
        self._limit_edge(None)

    @property
    def clouds(self) -> Clouds:
        """What the figure shows."""
        return _plane_clouds(self.guidance_scale) if self._given is None else self._given

    def make_controls(self) -> Mapping[str, ipywidgets.ValueWidget]:
        """K and the edge; the guidance too where the teacher can be asked again."""
        windows = ipywidgets.SelectionSlider(
            options=self.clouds.windows(), value=self.num_windows, description="windows K"
        )
        edge = ipywidgets.IntSlider(min=1, max=self.num_windows - 1, description="inner edge")
        controls: dict[str, ipywidgets.ValueWidget] = {"num_windows": windows, "edge": edge}
        if self._given is None:
            controls["guidance_scale"] = ipywidgets.FloatSlider(
                min=1, max=8, step=0.5, description="guidance scale"
            )
        return controls

    def draw(self) -> Figure:
        """Clouds at the edge, and distances at all times."""
        return clouds_figure(self.clouds, self.num_windows, self.edge)

    def caption(self) -> str:
        """The test at the edge, in words."""
        index = self.clouds.edges(self.num_windows)[self.edge - 1]
        t, test = self.clouds.times[index], self.clouds.tests[index]
        return f"At t = {t:.3g} the clouds' energy distance is {test}."

    @traitlets.validate("edge")
    def _edge_within(self, proposal: Any) -> int:
        return min(proposal["value"], self.num_windows - 1)

    def _limit_edge(self, change: Any) -> None:
        self.edge = min(self.edge, self.num_windows - 1)
        self.controls["edge"].max = self.num_windows - 1


@lru_cache(maxsize=32)
def _plane_clouds(guidance_scale: float) -> Clouds:
    """Few enough points and shuffles to follow a dragged slider."""
    return mixture_clouds(guidance_scale, count=200, steps=24, shuffles=99)
