"""Figures of measured results: what the reproduction and its report show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flowsteer.measure.bootstrap import Interval
from flowsteer.plots.style import new_panels, themed

Point = tuple[float, Interval]
"""Where on the abscissa, and what was measured there."""
DISTANCE = "distance to the teacher (relative L2)"
EMOJI_EVAL = "EmojiEval"


@themed
def scheduler_figure(networks: Mapping[str, Mapping[str, Sequence[Point]]]) -> Figure:
    """EmojiEval over the number of steps, a panel a network, a line a scheduler.

    Args:
        networks: network -> scheduler -> (steps, EmojiEval), rising in steps.
    """
    figure, panels = new_panels(len(networks))
    for axes, (network, curves) in zip(panels, networks.items(), strict=True):
        for scheduler, points in curves.items():
            interval_line(axes, points, scheduler)
        counts = sorted({steps for points in curves.values() for steps, _ in points})
        axes.set_xscale("log", base=2)
        axes.set_xticks(counts, [f"{count:g}" for count in counts])
        axes.minorticks_off()
        axes.set(title=network, xlabel="steps", ylabel=EMOJI_EVAL, ylim=(0, 1))
        axes.legend(loc="lower right")
    return figure


@themed
def mismatch_figure(
    edges: Sequence[float],
    authentic: Interval,
    interpolated: Sequence[Interval],
    latent_distances: Mapping[str, Sequence[float]],
) -> Figure:
    """What restarting the teacher costs, by the time of the restart.

    Args:
        edges: times of the restarts.
        authentic: EmojiEval of the teacher's own path.
        interpolated: EmojiEval after a restart from an interpolated state at each edge.
        latent_distances: kind of state -> distance to the teacher's states at each edge.
    """
    figure, (left, right) = new_panels(2)
    left.axhline(authentic.mean, color="C0", label="authentic")
    left.axhspan(authentic.low, authentic.high, color="C0", alpha=0.2)
    interval_line(left, list(zip(edges, interpolated, strict=True)), "interpolated", color="C1")
    left.set(xlabel="t of the start", ylabel=EMOJI_EVAL)
    for index, (name, values) in enumerate(latent_distances.items()):
        right.plot(edges, values, marker="o", color=f"C{index}", label=name)
    right.set(xlabel="t of the start", ylabel="latent distance to the teacher's states", ylim=0)
    for axes in (left, right):
        axes.set_xticks(list(edges))
        axes.invert_xaxis()  # sampling runs from noise, t = 1, to data
        axes.legend()
    return figure


@themed
def ablation_figure(
    rows: Mapping[str, tuple[Interval, Interval]], lines: Mapping[str, float]
) -> Figure:
    """EmojiEval and distance of every row, with their intervals, side by side.

    Args:
        rows: label -> (EmojiEval, distance), the first on top.
        lines: label -> EmojiEval of what the rows are held against.
    """
    figure, panels = new_panels(2, height=1.2 + 0.4 * len(rows))
    for number, (axes, name) in enumerate(zip(panels, (EMOJI_EVAL, DISTANCE), strict=True)):
        for place, values in enumerate(rows.values()):
            interval = values[number]
            axes.errorbar(interval.mean, -place, xerr=_bars([interval]), fmt="o", color="C0")
        axes.set_yticks([-place for place in range(len(rows))], list(rows) if number == 0 else [])
        axes.set(xlabel=name, ylim=(0.5 - len(rows), 0.5))
    for index, (label, value) in enumerate(lines.items()):
        panels[0].axvline(value, color=f"C{index + 1}", linestyle="--", label=label)
    if lines:
        figure.legend(loc="outside upper right", ncols=len(lines))
    return figure


@themed
def time_figure(rows: Mapping[str, Sequence[tuple[float, Interval, Interval]]]) -> Figure:
    """EmojiEval and distance of checkpoints over training time.

    Args:
        rows: label -> (seconds, EmojiEval, distance) of each checkpoint.
    """
    figure, panels = new_panels(2)
    for number, (axes, name) in enumerate(zip(panels, (EMOJI_EVAL, DISTANCE), strict=True)):
        for label, points in rows.items():
            intervals = [(evals, distances)[number] for _, evals, distances in points]
            seconds = [point[0] for point in points]
            interval_line(axes, list(zip(seconds, intervals, strict=True)), label)
        axes.set(xlabel="training time (s)", ylabel=name)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


@themed
def curves_figure(
    curves: Mapping[str, Mapping[str, Sequence[float]]], names: Sequence[str]
) -> Figure:
    """Training curves, a panel a quantity, a line a run.

    Args:
        curves: run -> quantity -> values, "step" among them; a run may lack a quantity.
        names: the quantities to draw.
    """
    figure, panels = new_panels(len(names))
    for axes, name in zip(panels, names, strict=True):
        for index, (label, values) in enumerate(curves.items()):
            if name in values:
                axes.plot(values["step"], values[name], color=f"C{index}", label=label)
        axes.set(xlabel="step", ylabel=name.replace("_", " "))
        drawn = [value for values in curves.values() for value in values.get(name, ())]
        if name == "loss" and min(drawn) > 0:  # an adversarial one may fall below 0
            axes.set_yscale("log")
    panels[0].legend(fontsize="small")
    return figure


@themed
def solver_figure(curves: Mapping[str, Sequence[tuple[float, float]]]) -> Figure:
    """Error of the rollout's end over the calls that it took, a line a solver.

    Args:
        curves: solver -> (calls, relative error).
    """
    figure, (axes,) = new_panels(1)
    for solver, points in curves.items():
        axes.plot(*zip(*points, strict=True), marker="o", label=solver)
    axes.set(xscale="log", yscale="log", xlabel="teacher calls", ylabel="endpoint error")
    axes.legend()
    return figure


def interval_line(
    axes: Axes, points: Sequence[Point], label: str, color: str | None = None
) -> None:
    """Draw means as a line with their intervals as bars."""
    intervals = [interval for _, interval in points]
    axes.errorbar(
        [place for place, _ in points],
        [interval.mean for interval in intervals],
        yerr=_bars(intervals),
        marker="o",
        capsize=2,
        label=label,
        color=color,
    )


def _bars(intervals: Sequence[Interval]) -> list[list[float]]:
    """How far the ends lie below and above the means, as errorbar takes them."""
    below = [max(interval.mean - interval.low, 0.0) for interval in intervals]
    return [below, [max(interval.high - interval.mean, 0.0) for interval in intervals]]
