"""What the trajectory screen shows: guesses step by step, paths in a plane, distances."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from flowsteer.app.figures import figure_html, places_in
from flowsteer.app.html import escape, hint, image_html, table_html
from flowsteer.app.snapshots import Trace, Trajectories

if TYPE_CHECKING:
    from flowsteer.paths import Plane

GUESS = (
    "At every call the network says where the path is going: the picture that it would reach in a"
    " straight line from here. Early guesses are blurry averages of all that the prompt leaves"
    " open."
)
PLANE = (
    "States are points in a space of thousands of dimensions. This is the plane in which the"
    " teacher's own states vary most; what a student does outside of it is not seen."
)
DISTANCE = (
    "Relative L2 from each state to the teacher's path at the same sigma, interpolated between two"
    " of its steps. All start from the same noise, at 0."
)


def teacher_of(shown: Trajectories) -> Trace:
    """The trace of the first column, the teacher's."""
    return shown.traces[shown.request.columns[0].key]


def plane_for(shown: Trajectories) -> Plane:
    """The plane of the teacher's states.

    Raises:
        ValueError: if these are not finite.
    """
    from flowsteer.paths import plane_of

    return plane_of(teacher_of(shown).path.states.flatten(0, 1))


def distances_of(shown: Trajectories) -> dict[str, list[float]]:
    """Each path's distances (N + 1,) to the teacher's, by key."""
    from flowsteer.paths import distance_along

    teacher = teacher_of(shown).path
    return {
        key: distance_along(trace.path, teacher).flatten().tolist()
        for key, trace in shown.traces.items()
    }


def points_of(shown: Trajectories, plane: Plane) -> dict[str, list[list[float]]]:
    """Each path's states (N + 1) as pairs in a plane, by key."""
    return {
        key: plane.project(trace.path.states.flatten(0, 1)).tolist()
        for key, trace in shown.traces.items()
    }


def edges_of(shown: Trajectories) -> list[float]:
    """All window edges of the students, falling, ends left out."""
    edges = {round(edge, 6) for trace in shown.traces.values() for edge in trace.edges}
    return sorted(edges - {0.0, 1.0}, reverse=True)


def trajectory_view(shown: Trajectories) -> str:
    """Slider, guesses, plane and distances of complete trajectories."""
    teacher = teacher_of(shown)
    sigmas = list(teacher.path.times[:-1])
    edges = edges_of(shown)
    plane_part, distances = _plane_html(shown, edges), distances_of(shown)
    strips = "".join(_strip_html(trace, shown.request.prompt) for trace in shown.traces.values())
    marks = "".join(
        f'<i style="left:{100 * _position(edge, sigmas):.2f}%" title="window edge {edge:g}"></i>'
        for edge in edges
    )
    return (
        f'<section class="fs-steps" data-fs-steps="{json.dumps(sigmas)}" aria-label="Trajectories">'
        f"<h2>{hint('Guesses', GUESS)}</h2>"
        '<div class="fs-slider"><label for="step-slider">Step</label><div class="fs-track">'
        f'<input id="step-slider" type="range" data-fs-slider min="0" max="{len(sigmas) - 1}"'
        f' step="1" value="0"><div class="fs-marks" aria-hidden="true">{marks}</div></div>'
        "<output data-fs-sigma></output></div>"
        f'<div class="fs-strips">{strips}</div>'
        f'<div class="fs-plots"><div><h2>{hint("Paths in the teacher’s plane", PLANE)}</h2>'
        f"{plane_part}</div><div><h2>{hint('Distance along sigma', DISTANCE)}</h2>"
        f"{_distance_html(shown, edges, distances)}</div></div>"
        f"{_table(shown, distances)}</section>"
    )


def _position(edge: float, sigmas: Sequence[float]) -> float:
    """Where an edge lies between the slider's steps, as a share of its length."""
    below = next((i for i, sigma in enumerate(sigmas) if sigma <= edge), len(sigmas) - 1)
    if below == 0:
        return 0.0
    hi, lo = sigmas[below - 1], sigmas[below]
    inside = (hi - edge) / (hi - lo) if hi > edge > lo else float(edge <= lo)
    return min((below - 1 + inside) / max(len(sigmas) - 1, 1), 1.0)


def _strip_html(trace: Trace, prompt: str) -> str:
    times = json.dumps(list(trace.path.times[:-1]))
    images = "".join(
        image_html(
            frame,
            f"{trace.column.title}, guess of call {index + 1} of {len(trace.frames)}: {prompt}",
            more="" if index == 0 else " hidden",
        )
        for index, frame in enumerate(trace.frames)
    )
    title, _, cost = trace.column.title.partition(", ")
    return (
        f'<article class="fs-card fs-strip" data-fs-strip="{times}"'
        f' data-key="{escape(trace.column.key)}">'
        f"<header><h3><span>{escape(title)}</span> {escape(cost)}</h3></header>"
        f'<div class="fs-picture">{images}</div><p data-fs-call></p></article>'
    )


def _plane_html(shown: Trajectories, edges: Sequence[float]) -> str:
    """The figure, with a dot on each path that `app.js` moves with the slider."""
    from flowsteer.paths import state_at
    from flowsteer.plots.trajectories import plane_figure

    plane = plane_for(shown)
    points = points_of(shown, plane)
    teacher = teacher_of(shown).path
    ringed = [plane.project(state_at(teacher, edge))[0].tolist() for edge in edges]
    titles = {key: trace.column.title for key, trace in shown.traces.items()}
    labelled = {titles[key]: path for key, path in points.items()}
    draw = partial(plane_figure, labelled, plane.explained, ringed)
    flat = [point for path in points.values() for point in path]
    where = iter(places_in(draw, flat))
    dots = ""
    for key, path in points.items():
        shares = json.dumps([next(where) for _ in path])
        dots += f'<i class="fs-dot" data-fs-dot="{escape(key)}" data-points="{shares}"></i>'
    alt = f"Paths of {', '.join(titles.values())} in the plane of the teacher's states"
    return figure_html(draw, alt, f'<div class="fs-dots" aria-hidden="true">{dots}</div>')


def _distance_html(
    shown: Trajectories, edges: Sequence[float], distances: Mapping[str, Sequence[float]]
) -> str:
    from flowsteer.plots.trajectories import distance_along_figure

    first = shown.request.columns[0].key
    curves = {
        trace.column.title: list(zip(trace.path.times, distances[key], strict=True))
        for key, trace in shown.traces.items()
        if key != first
    }
    alt = "Distance to the teacher's path over sigma; the same numbers end the table below"
    return figure_html(partial(distance_along_figure, curves, edges), alt)


def _table(shown: Trajectories, distances: Mapping[str, Sequence[float]]) -> str:
    rows = [
        [
            escape(trace.column.title),
            str(trace.path.nfe),
            f"{max(distances[key]):.3f}",
            f"{distances[key][-1]:.3f}",
        ]
        for key, trace in shown.traces.items()
    ]
    head = ["Path", "NFE", "Largest distance", "Distance at the end"]
    return table_html("Distances to the teacher's path", head, rows)
