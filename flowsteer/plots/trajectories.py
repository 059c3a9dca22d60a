"""Figures of sampling paths: where they run in the teacher's plane, how far from the teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flowsteer.plots.style import PALETTE, new_panels, themed

Points = Sequence[Sequence[float]]


@themed
def plane_figure(
    paths: Mapping[str, Points],
    explained: tuple[float, float],
    edges: Points = (),
) -> Figure:
    """Paths in the plane of the first one's states.

    Args:
        paths: label -> points (n, 2), the teacher's first.
        explained: shares of the teacher's variance along both axes.
        edges: points (k, 2) of the teacher's path at the window edges, ringed.
    """
    figure, (axes,) = new_panels(1, height=3.8, width=4.6)
    for index, (label, points) in enumerate(paths.items()):
        style: dict[str, Any] = (
            {"linewidth": 2.2, "markersize": 3} if index == 0 else {"alpha": 0.9}
        )
        axes.plot(
            *zip(*points, strict=True),
            marker="o",
            color=PALETTE[index % len(PALETTE)],
            label=label,
            **style,
        )
    if len(edges):
        ringed: dict[str, Any] = {"markerfacecolor": "none", "markersize": 10, "linestyle": "none"}
        axes.plot(
            *zip(*edges, strict=True), marker="o", color=PALETTE[0], label="window edges", **ringed
        )
    names = ("first", "second")
    x, y = (f"{n} component ({share:.0%})" for n, share in zip(names, explained, strict=True))
    axes.set(xlabel=x, ylabel=y)
    _mark_noise(axes, next(iter(paths.values())))
    axes.legend(fontsize="small")
    return figure


@themed
def distance_along_figure(
    curves: Mapping[str, Sequence[tuple[float, float]]], edges: Sequence[float] = ()
) -> Figure:
    """Distance to the teacher's path over sigma, from noise on the left to the picture.

    Args:
        curves: label -> (sigma, relative L2); colours follow those of `plane_figure`, whose first
            path is the teacher's own.
        edges: window edges, marked.
    """
    figure, (axes,) = new_panels(1, height=3.8, width=4.6)
    for edge in edges:
        axes.axvline(edge, color=PALETTE[6], linestyle=":", linewidth=1.2)
    for index, (label, points) in enumerate(curves.items()):
        axes.plot(
            *zip(*points, strict=True),
            marker="o",
            color=PALETTE[(index + 1) % len(PALETTE)],
            label=label,
        )
    if edges:
        axes.plot([], [], color=PALETTE[6], linestyle=":", label="window edges")
    axes.set(xlabel="sigma (1 is noise)", ylabel="distance to the teacher (relative L2)", ylim=0)
    axes.invert_xaxis()
    axes.legend(fontsize="small")
    return figure


def _mark_noise(axes: Axes, points: Points) -> None:
    x, y = points[0]
    axes.annotate("noise", (x, y), xytext=(6, 6), textcoords="offset points", fontsize="small")
