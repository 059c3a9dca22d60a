"""Figures of students in the plane: where they arrive."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from matplotlib.figure import Figure
from torch import Tensor

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
