"""Figures of students beside their teacher: film strips, paths, distances, a run's log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, StrMethodFormatter
from torch import Tensor

from flowsteer.measure.bootstrap import Interval, mean_interval
from flowsteer.paths import Plane, RecordedPath
from flowsteer.plots.style import PALETTE, new_panels, themed

Picture = Any
"""A PIL picture, an array (h, w, 3), or a tensor (3, h, w) in [-1, 1]."""
_MARKERS = "osD^vPX"


@themed
def strips_figure(rows: Mapping[str, Sequence[tuple[str, Picture]]], side: float = 1.1) -> Figure:
    """Rows of pictures, each with words above it: film strips, or a sheet.

    Args:
        rows: row's label -> (words, picture), left to right; rows may differ in length.
        side: of a picture in inches.

    Raises:
        ValueError: if there is no picture.
    """
    longest = max((len(row) for row in rows.values()), default=0)
    if longest == 0:
        raise ValueError("rows hold no pictures; give at least one")
    figure, panels = new_panels(longest, side + 0.24, side + 0.1, rows=len(rows))
    room = 0.085 * max(len(line) for label in rows for line in label.split("\n"))  # inches a letter
    figure.set_size_inches(longest * (side + 0.1) + room, len(rows) * (side + 0.24))
    for place, (label, row) in enumerate(rows.items()):
        line = panels[place * longest : (place + 1) * longest]
        for axes in line:
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        for axes, (words, picture) in zip(line, row, strict=False):
            axes.imshow(_pixels(picture))
            axes.set_title(words, fontsize="small", pad=2)
        line[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize="small")
    return figure


@themed
def plane_figure(plane: Plane, paths: Mapping[str, RecordedPath], picture: int = 0) -> Figure:
    """Paths of one picture in one plane, whole and near their ends.

    Args:
        plane: fitted to the teacher's states.
        paths: label -> path, the teacher's first; marks where calls are made.
        picture: which of the batch.
    """
    figure, panels = new_panels(2, height=3.7, width=4.6)
    seen = {name: plane.project(path.states[:, picture]) for name, path in paths.items()}
    for number, (name, points) in enumerate(seen.items()):
        x, y = points.T.tolist()
        for axes in panels:
            marker = "" if number == 0 else _MARKERS[number % len(_MARKERS)]
            axes.plot(x, y, marker=marker, color=_colour(number), label=name)
            axes.plot(x[-1:], y[-1:], marker="*", ms=10, color=_colour(number), ls="")
    first, second = (f"{share:.1%} of variance" for share in plane.explained)
    for axes, title in zip(
        panels, ("from noise (left) to picture", "their ends (stars)"), strict=True
    ):
        axes.set(title=title, xlabel=f"component 1 ({first})", ylabel=f"component 2 ({second})")
    ends = np.array([points[-1].tolist() for points in seen.values()])
    middle, half = ends.mean(0), 0.7 * max(float(np.ptp(ends, axis=0).max()), 1e-6)
    panels[1].set(
        xlim=(middle[0] - half, middle[0] + half), ylim=(middle[1] - half, middle[1] + half)
    )
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


@themed
def leaving_figure(distances: Mapping[str, tuple[Sequence[float], Tensor]]) -> Figure:
    """Distance to the teacher's path over t, with the interval over pictures where there are more.

    Args:
        distances: label -> (times (N + 1,), from `distance_along` (N + 1, b)).
    """
    figure, (axes,) = new_panels(1, height=3.7, width=6.4)
    for number, (name, (times, values)) in enumerate(distances.items(), 1):
        means = [mean_interval(row) for row in values]
        marker = _MARKERS[number % len(_MARKERS)]
        colour = _colour(number)
        axes.plot(times, [m.mean for m in means], marker=marker, color=colour, label=name)
        if values.shape[1] > 1:
            lows, highs = [m.low for m in means], [m.high for m in means]
            axes.fill_between(times, lows, highs, color=colour, alpha=0.2, lw=0)
    axes.set(xlabel="t (1: noise, 0: picture)", xlim=(1, 0), ylim=0)
    axes.set_ylabel("distance to the teacher (relative L2)")
    axes.legend()
    return figure


@themed
def log_figure(rows: Sequence[Mapping[str, float]], names: Sequence[str], bins: int = 24) -> Figure:
    """A training run's quantities over its steps, a panel each: means of equal pieces, with
    their 95% intervals.

    Args:
        rows: of the log, each with "step"; a row may lack a quantity.
        names: the quantities to draw.
        bins: pieces, fewer if the log is short.

    Raises:
        ValueError: if no row has one of the quantities.
    """
    figure, panels = new_panels(len(names), height=3.2, width=4.6)
    for axes, name in zip(panels, names, strict=True):
        points = [(row["step"], row[name]) for row in rows if name in row]
        if not points:
            raise ValueError(
                f"the log has no {name!r}; it has {', '.join(rows[0] if rows else ())}"
            )
        _binned(axes, points, bins)
        axes.set(xlabel="step", ylabel=name.replace("_", " "))
    return figure


@themed
def rows_figure(
    rows: Mapping[str, Interval], name: str, line: float | None = None, log: bool = False
) -> Figure:
    """One quantity of several systems with its intervals, the first on top.

    Args:
        rows: label -> mean and interval.
        name: of the quantity, with its unit.
        line: a value to hold them against.
        log: a logarithmic axis, for values above 0.
    """
    figure, (axes,) = new_panels(1, height=0.9 + 0.36 * len(rows), width=6.4)
    for place, interval in enumerate(rows.values()):
        ends = [[interval.mean - interval.low], [interval.high - interval.mean]]
        axes.errorbar(interval.mean, -place, xerr=ends, fmt="o", color=PALETTE[0], capsize=3)
    if line is not None:
        axes.axvline(line, color=PALETTE[6], ls="--")
    axes.set_yticks([-place for place in range(len(rows))], list(rows))
    axes.set(xlabel=name, ylim=(0.5 - len(rows), 0.5))
    if log:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.minorticks_off()
    return figure


def _binned(axes: Axes, points: Sequence[tuple[float, float]], bins: int) -> None:
    pieces = np.array_split(np.array(points, dtype=float), min(bins, len(points)))
    means = [mean_interval(piece[:, 1].tolist()) for piece in pieces]
    steps = [float(piece[:, 0].mean()) for piece in pieces]
    axes.plot(steps, [m.mean for m in means], marker="o", ms=3, color=PALETTE[0])
    lows, highs = [m.low for m in means], [m.high for m in means]
    axes.fill_between(steps, lows, highs, color=PALETTE[0], alpha=0.25, lw=0)


def _pixels(picture: Picture) -> np.ndarray:
    """Bytes (h, w, 3)."""
    if isinstance(picture, Tensor):
        return ((picture.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).cpu().numpy()
    return np.asarray(picture)


def _colour(number: int) -> str:
    return PALETTE[number % len(PALETTE)]
