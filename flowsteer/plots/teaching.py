"""Figures of students in the plane: where they arrive, and how far from the teacher."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, StrMethodFormatter
from torch import Tensor

from flowsteer.measure.bootstrap import Interval
from flowsteer.plots.paths import dots, frame_plane
from flowsteer.plots.style import new_panels, themed


@themed
def arrivals_figure(arrivals: Mapping[str, Tensor], ends: Tensor) -> Figure:
    """Where each field's steps arrive, over the teacher's exact ends, a panel a field.

    Args:
        arrivals: field -> (b, 2).
        ends: (b, 2) of the same noise; a faint line joins each to where the field arrived.
    """
    figure, panels = new_panels(len(arrivals), height=3.1, width=2.8)
    for axes, (name, points) in zip(panels, arrivals.items(), strict=True):
        joined = torch.stack([ends, points])  # a column of two points makes a line
        axes.plot(joined[..., 0], joined[..., 1], color="C6", linewidth=0.6, alpha=0.7)
        dots(axes, ends, s=14, facecolors="none", edgecolors="C6", label="teacher's ends")
        dots(axes, points, s=8, color="C0", zorder=3, linewidths=0, label="student's")
        axes.set_title(name)
        frame_plane(axes)
    panels[0].legend(loc="center", fontsize="small", handletextpad=0.3)
    return figure


@themed
def distance_figure(rows: Mapping[str, Interval], unit: str = "units of the plane") -> Figure:
    """Distances with their intervals on a logarithmic axis, a row each, the first on top.

    Args:
        rows: label -> mean distance to the teacher's exact ends, above 0.
        unit: of the distances.
    """
    figure, (axes,) = new_panels(1, height=0.9 + 0.36 * len(rows), width=6.4)
    for place, interval in enumerate(rows.values()):
        away = [[interval.mean - interval.low], [interval.high - interval.mean]]
        axes.errorbar(interval.mean, -place, xerr=away, fmt="o", capsize=3, color="C0")
    axes.set_yticks([-place for place in range(len(rows))], list(rows))
    axes.set(xscale="log", ylim=(0.6 - len(rows), 0.6))
    axes.set_xlabel(f"mean distance to the exact ends ({unit})")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.minorticks_off()
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    return figure
