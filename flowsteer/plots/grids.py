"""Figures of time grids: the staircase, and what a grid does to pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from PIL import Image
from torch import Tensor

from flowsteer.measure.bootstrap import Interval
from flowsteer.plots.results import Point, interval_line
from flowsteer.plots.style import new_panels, themed

COLORS = {"stock": "C1", "rectified": "C0"}


@themed
def staircase_figure(grids: Mapping[str, Tensor | Sequence[float]]) -> Figure:
    """The way from noise down to data, call by call, and the share of it that each call covers.

    Args:
        grids: name -> times (N + 1,), all of one N.
    """
    figure, (stairs, shares) = new_panels(2, height=3.4, width=4.4)
    num_steps = 0
    for place, (name, grid) in enumerate(grids.items()):
        times, color = [float(t) for t in grid], COLORS.get(name, f"C{place}")
        num_steps = len(times) - 1
        stairs.step(range(num_steps + 1), times, where="post", color=color, label=name)
        stairs.plot(range(num_steps + 1), times, "o", color=color)
        sizes = [t_hi - t_lo for t_hi, t_lo in pairwise(times)]
        width = 0.8 / len(grids)
        left = [call + 0.6 + width * (place + 0.5) for call in range(num_steps)]
        shares.bar(left, sizes, width, color=color, label=name)
        last = f"{sizes[-1]:.1%}"
        shares.annotate(last, (left[-1], sizes[-1]), ha="center", va="bottom", fontsize="small")
    every = max(1, num_steps // 10)
    stairs.set(xlabel="calls made", ylabel="t (1 is noise, 0 is data)", ylim=(-0.03, 1.03))
    stairs.set_xticks(range(0, num_steps + 1, every))
    shares.set(xlabel="call", ylabel="share of the path it covers")
    shares.set_xticks(range(1, num_steps + 1, every))
    shares.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    shares.margins(y=0.12)
    stairs.legend(loc="upper right")
    return figure


@themed
def call_error_figure(errors: Mapping[str, Sequence[Interval]]) -> Figure:
    """What each Euler step alone loses, if it begins on the exact path.

    Args:
        errors: grid -> the error of each of its calls, in order.
    """
    figure, (axes,) = new_panels(1, height=3.2, width=5.6)
    for place, (name, calls) in enumerate(errors.items()):
        shift = 0.12 * (place - (len(errors) - 1) / 2)
        points = [(call + 1 + shift, interval) for call, interval in enumerate(calls)]
        interval_line(axes, points, name, COLORS.get(name, f"C{place}"))
    axes.set_xticks(range(1, max(map(len, errors.values())) + 1))
    axes.set(xlabel="call", ylabel="error of the step (relative L2)", ylim=0)
    axes.legend()
    return figure


@themed
def grid_distance_figure(
    distances: Mapping[str, Sequence[Point]], gaps: Sequence[tuple[float, Interval]]
) -> Figure:
    """Distance to the fine solution over the number of steps, and the stock grid's loss.

    Args:
        distances: grid -> (steps, distance), rising in steps.
        gaps: (steps, stock minus rectified), pair by pair.
    """
    figure, (left, right) = new_panels(2, height=3.4, width=4.4)
    for place, (name, points) in enumerate(distances.items()):
        interval_line(left, points, name, COLORS.get(name, f"C{place}"))
    interval_line(right, gaps, "stock minus rectified", "C2")
    right.axhline(0, color="C6", linewidth=1)
    counts = [steps for steps, _ in gaps]
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_xticks(counts, [f"{count:g}" for count in counts])
        axes.minorticks_off()
        axes.set_xlabel("steps N")
    left.set(ylabel="distance to the fine solution (relative L2)", ylim=0)
    right.set_ylabel("stock minus rectified, with 95% interval")
    left.legend()
    return figure


@themed
def picture_table_figure(
    rows: Mapping[str, Sequence[Image.Image]], columns: Sequence[str]
) -> Figure:
    """Pictures in rows and columns with their names.

    Args:
        rows: name -> pictures of one size, as many as there are columns.
        columns: names.
    """
    figure, panels = new_panels(len(columns), height=1.55, width=1.5, rows=len(rows))
    pictures = [picture for row in rows.values() for picture in row]
    for place, (axes, picture) in enumerate(zip(panels, pictures, strict=True)):
        axes.imshow(picture)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        row, column = divmod(place, len(columns))
        if row == 0:
            axes.set_title(columns[column])
        if column == 0:
            axes.set_ylabel(list(rows)[row])
    return figure
