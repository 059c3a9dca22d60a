"""Figures of paths in the plane: field, density, particles, the order of a solver, curvature."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from flowsteer.flow import Trajectory
from flowsteer.measure.paths import measured_order
from flowsteer.plots.style import PALETTE, new_panels, themed
from flowsteer.toy import REACH, FieldView

LEVELS = (0.02, 0.1, 0.25, 0.45, 0.7, 1.0)
"""Contours of a density, in shares of its maximum."""


@themed
def path_figure(view: FieldView, paths: Trajectory, exact: Trajectory, title: str) -> Figure:
    """The field at one time beside whole paths: those of a solver and the exact ones.

    Args:
        view: density and arrows of the left panel.
        paths: of the solver, states (n + 1, b, 2).
        exact: the same particles, solved finely, states (m + 1, b, 2).
        title: of the right panel.
    """
    figure, (left, right) = new_panels(2, height=4.0, width=4.0)
    shade_plane(left, view)
    dots(left, _at(exact, view.t), s=14, color="C1", zorder=3)
    left.set_title(f"field, density and particles at t = {view.t:.2f}")
    for states, color, width in ((exact.states, "C6", 1.0), (paths.states, "C0", 1.2)):
        right.plot(states[:, :, 0], states[:, :, 1], color=color, linewidth=width)
    dots(right, paths.states.flatten(0, 1), s=5, color="C0", label="steps")
    dots(right, exact.end, s=26, facecolors="none", edgecolors="C6", label="exact ends")
    dots(right, paths.end, s=14, color="C1", zorder=3, label="reached ends")
    right.set_title(title)
    for axes in (left, right):
        frame_plane(axes)
    right.legend(loc="lower left", fontsize="small", handletextpad=0.3)
    return figure


@themed
def particles_figure(views: Sequence[FieldView], particles: Sequence[Tensor]) -> Figure:
    """One cloud of particles on the density through time, a panel a time, noise first.

    Args:
        views: the field at each time.
        particles: (b, 2) at each time.
    """
    figure, panels = new_panels(len(views), height=3.1, width=2.9)
    for axes, view, points in zip(panels, views, particles, strict=True):
        shade_plane(axes, view)
        dots(axes, points, s=7, color="C1", zorder=3, linewidths=0)
        axes.set_title(f"t = {view.t:.2f}")
        frame_plane(axes)
    return figure


@themed
def order_figure(errors: Mapping[str, Sequence[tuple[int, float]]]) -> Figure:
    """Error over the number of steps on logarithmic axes, with each solver's measured order.

    Args:
        errors: solver -> (steps, mean error), rising in steps.
    """
    figure, (axes,) = new_panels(1, height=3.6, width=5.2)
    for solver, points in errors.items():
        steps, values = zip(*points, strict=True)
        order = measured_order(steps, values)
        axes.plot(steps, values, marker="o", label=f"{solver}: order {order:.2f}")
    counts = sorted({steps for points in errors.values() for steps, _ in points})
    axes.set(xscale="log", yscale="log", xlabel="steps N")
    axes.set_ylabel("mean distance to the exact ends")
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.minorticks_off()
    axes.legend()
    return figure


@themed
def bend_figure(
    paths: Mapping[str, Tensor], curvature: Mapping[str, tuple[Sequence[float], Sequence[float]]]
) -> Figure:
    """Paths from the same noise in some fields, and how hard they turn along the way.

    Args:
        paths: field -> states (n + 1, b, 2) of a few particles, a panel each.
        curvature: field -> times and the mean of |dv/dt| there, a line each.
    """
    figure, panels = new_panels(len(paths) + 1, height=3.4, width=3.4)
    names = list(curvature)
    for axes, (name, states) in zip(panels, paths.items(), strict=False):
        axes.plot(states[:, :, 0], states[:, :, 1], color=f"C{names.index(name)}", linewidth=1)
        dots(axes, states[0], s=8, color="C6", zorder=3, label="noise, t = 1")
        dots(axes, states[-1], s=16, color="C1", zorder=3, label="data, t = 0")
        axes.set_title(name)
        frame_plane(axes)
    panels[0].legend(loc="lower left", fontsize="small", handletextpad=0.3)
    for index, (name, (times, values)) in enumerate(curvature.items()):
        panels[-1].plot(times, values, color=f"C{index}", label=name)
    panels[-1].set(xlabel="t", ylabel="mean |dv/dt| along the path", ylim=0, xlim=(1, 0))
    panels[-1].legend(fontsize="small")
    return figure


def dots(axes: Axes, points: Tensor, **style: Any) -> None:
    """Points (b, 2) of the plane; `style` as `Axes.scatter` takes it."""
    axes.scatter(points[:, 0], points[:, 1], **style)


def frame_plane(axes: Axes) -> None:
    """Axes that show the square of the plane around the origin."""
    axes.set(xlim=(-REACH, REACH), ylim=(-REACH, REACH), xlabel="$x_1$", ylabel="$x_2$")
    axes.set_box_aspect(1)


def shade_plane(axes: Axes, view: FieldView, arrows: bool = True) -> None:
    """Density as filled contours, the field as arrows on every third point of the lattice."""
    x, y = view.points[..., 0], view.points[..., 1]
    peak = float(view.density.max())
    shades: Any = [(PALETTE[5], 0.12 + 0.13 * step) for step in range(len(LEVELS) - 1)]
    axes.contourf(x, y, view.density / peak, levels=LEVELS, colors=shades, zorder=0)
    if not arrows:
        return
    every = (slice(1, None, 3), slice(1, None, 3))
    velocity = view.velocity[every]
    longest = max(float(np.percentile(velocity.norm(dim=-1), 95)), 1e-6)
    axes.quiver(
        x[every],
        y[every],
        # sampling runs backwards in t: arrows point where a particle goes
        -velocity[..., 0],
        -velocity[..., 1],
        color="C6",
        scale=24 * longest,
        width=0.004,
        zorder=1,
    )


def _at(paths: Trajectory, t: float) -> Tensor:
    """States at a time, on the line between the two times around it: (b, 2)."""
    times = paths.times
    after = int((times > t).sum().clamp(1, len(times) - 1))
    share = (times[after - 1] - t) / (times[after - 1] - times[after])
    return paths.states[after - 1].lerp(paths.states[after], float(share))
