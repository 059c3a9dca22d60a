"""Figures of the mismatch: where the teacher is, and where PeRFlow's windows start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from flowsteer.clouds import Clouds
from flowsteer.flow import interpolate
from flowsteer.measure.energy import EnergyTest
from flowsteer.plots.style import PALETTE, new_panels, themed

AUTHENTIC = "authentic: the teacher's own"
INTERPOLATED = "interpolated: PeRFlow's starts"
ENERGY = "energy distance"
# by value: a line looks "C0" up when it is drawn, which may be after the theme has ended
_OWN, _STRAIGHT, _GREY = PALETTE[0], PALETTE[1], PALETTE[6]


@themed
def clouds_figure(clouds: Clouds, num_windows: int, edge: int = 1) -> Figure:
    """Both clouds at one inner edge, and their distance at all times, edges marked.

    Args:
        clouds: to show.
        num_windows: K.
        edge: which inner edge, 1 (noisiest) to K - 1.

    Raises:
        ValueError: if there are no such windows or edge.
    """
    index = _edge(clouds, num_windows, edge)
    figure, (left, right) = new_panels(2, height=3.6)
    _clouds(left, clouds, index)
    left.legend(loc="lower center", bbox_to_anchor=(0.5, 1.08), markerscale=1.6)
    _distances(right, {"distance": (clouds.times, clouds.tests)}, clouds.edges(num_windows))
    test = clouds.tests[index]
    right.plot(clouds.times[index], test.distance, "o", ms=9, color=_OWN, zorder=4)
    right.set_title(f"K = {num_windows} windows: {num_windows - 1} inner edges")
    return figure


@themed
def edges_figure(clouds: Clouds, num_windows: int) -> Figure:
    """Both clouds at every inner edge of K windows, a panel each, in one frame.

    Raises:
        ValueError: if there are no such windows.
    """
    indices = clouds.edges(num_windows)
    figure, panels = new_panels(len(indices), height=3.4, width=3.2)
    for axes, index in zip(panels, indices, strict=True):
        _clouds(axes, clouds, index)
        if axes is not panels[0]:
            axes.set_ylabel("")
            axes.set_yticklabels([])
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=2, markerscale=2)
    return figure


@themed
def distances_figure(curves: Mapping[str, tuple[Sequence[float], Sequence[EnergyTest]]]) -> Figure:
    """Distance of two clouds over time, a line a case, above what chance makes of it.

    Args:
        curves: case -> (times, the test at each).
    """
    figure, (axes,) = new_panels(1, height=3.6, width=6.4)
    _distances(axes, curves)
    figure.legend(loc="outside upper center", ncols=2)
    return figure


@themed
def chords_figure(
    times: Sequence[float], states: Tensor, x_0: Tensor, num_windows: int, every: int = 1
) -> Figure:
    """The teacher's paths in the plane, and straight lines from the same noises to pictures.

    Args:
        times: (T,), a rectified grid of a multiple of K steps.
        states: the teacher's, (T, n, 2).
        x_0: a picture for each noise, (n, 2).
        num_windows: K; a mark at each inner edge.
        every: draw each so-many-th path.
    """
    figure, (axes,) = new_panels(1, height=4.2, width=4.8)
    _chords(axes, times, states[:, ::every], x_0[::every], num_windows)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=1)
    return figure


@themed
def story_figure(
    clouds: Clouds, x_0: Tensor, num_windows: int, edge: int, paths: int = 7
) -> Figure:
    """The whole argument in a row: paths and chords, clouds at an edge, distance over time.

    Args:
        clouds: in the plane, n paths.
        x_0: pictures for the chords from these paths' noises, (n, 2).
        num_windows: K.
        edge: which inner edge the clouds are shown at.
        paths: how many are drawn.
    """
    index = _edge(clouds, num_windows, edge)
    figure, (first, second, third) = new_panels(3, height=3.9, width=4.0)
    _chords(first, clouds.times, clouds.authentic[:, :paths], x_0[:paths], num_windows)
    first.set_title("PeRFlow's straight lines\nagainst the teacher's paths")
    first.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), fontsize="small")
    _clouds(second, clouds, index)
    second.set_title(f"where a window starts\nat t = {clouds.times[index]:.2g}")
    second.legend(
        loc="upper center", bbox_to_anchor=(0.5, -0.16), fontsize="small", markerscale=1.8
    )
    _distances(third, {"distance": (clouds.times, clouds.tests)}, clouds.edges(num_windows))
    third.set_title(f"how far apart\nat the edges of K = {num_windows} windows")
    third.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), fontsize="small")
    return figure


def _edge(clouds: Clouds, num_windows: int, edge: int) -> int:
    indices = clouds.edges(num_windows)
    if not 1 <= edge <= len(indices):
        raise ValueError(
            f"edge = {edge}: {num_windows} windows have inner edges 1 to {len(indices)}"
        )
    return indices[edge - 1]


def _clouds(axes: Axes, clouds: Clouds, index: int) -> None:
    """Both clouds at one time, in a frame that fits all times but the noise's."""
    for cloud, label, colour, marker in (
        (clouds.interpolated, INTERPOLATED, _STRAIGHT, "s"),
        (clouds.authentic, AUTHENTIC, _OWN, "o"),
    ):
        size = 60 / max(len(cloud[index]), 60) * 22 + 3
        x, y = cloud[index].T.tolist()
        axes.scatter(x, y, size, color=colour, marker=marker, alpha=0.55, lw=0, label=label)
    axes.set(title=f"t = {clouds.times[index]:.3g}", xlabel=clouds.labels[0])
    axes.set_ylabel(clouds.labels[1])
    lowest, highest = _frame(clouds)
    axes.set(xlim=(lowest[0], highest[0]), ylim=(lowest[1], highest[1]), aspect="equal")


def _frame(clouds: Clouds) -> tuple[list[float], list[float]]:
    """Corners around all but a few of the points, with the same scale on both axes."""
    both = [
        cloud[len(cloud) // 8 :].flatten(0, 1) for cloud in (clouds.authentic, clouds.interpolated)
    ]
    ends = [points.float().quantile(q, dim=0) for points in both for q in (0.005, 0.995)]
    lowest = [min(float(end[i]) for end in ends) for i in (0, 1)]
    highest = [max(float(end[i]) for end in ends) for i in (0, 1)]
    half = 0.55 * max(high - low for low, high in zip(lowest, highest, strict=True))
    middle = [(low + high) / 2 for low, high in zip(lowest, highest, strict=True)]
    return [m - half for m in middle], [m + half for m in middle]


def _distances(
    axes: Axes,
    curves: Mapping[str, tuple[Sequence[float], Sequence[EnergyTest]]],
    marked: Sequence[int] = (),
) -> None:
    floor_drawn = False
    for number, (label, (times, tests)) in enumerate(curves.items()):
        floors = [test.floor for test in tests]
        name = None if floor_drawn else "99% of chance"
        axes.fill_between(times, 0, floors, color=_GREY, alpha=0.3, lw=0, label=name)
        floor_drawn = True
        distances = [test.distance for test in tests]
        axes.plot(times, distances, color=PALETTE[number], label=label)
        if marked:
            x, y = ([values[i] for i in marked] for values in (times, distances))
            axes.plot(x, y, "o", color=PALETTE[number], mfc="none", label="inner edges")
    axes.axhline(0, color=_GREY, lw=0.8)
    axes.set(xlabel="t (1: noise, 0: picture)", ylabel=ENERGY, xlim=(1, 0))


def _chords(
    axes: Axes, times: Sequence[float], states: Tensor, x_0: Tensor, num_windows: int
) -> None:
    edges = [k * (len(times) - 1) // num_windows for k in range(1, num_windows)]
    straight = [interpolate(x_0, states[0], times[k]) for k in edges]
    for i in range(states.shape[1]):
        line = ([float(states[0, i, j]), float(x_0[i, j])] for j in (0, 1))
        axes.plot(*line, color=_STRAIGHT, lw=1, ls="--")
        axes.plot(*states[:, i].T.tolist(), color=_OWN, lw=1.3)
        axes.plot(*states[edges, i].T.tolist(), "o", color=_OWN, ms=4, label=_once(i, AUTHENTIC))
        points = ([float(x[i, j]) for x in straight] for j in (0, 1))
        axes.plot(*points, "s", color=_STRAIGHT, ms=4, label=_once(i, INTERPOLATED))
        axes.plot(*states[0, i].tolist(), "x", color=_GREY, ms=5, label=_once(i, "noise"))
    axes.set(xlabel="$x_1$", ylabel="$x_2$", aspect="equal")


def _once(index: int, label: str) -> str | None:
    """A legend names each kind of mark once."""
    return label if index == 0 else None
