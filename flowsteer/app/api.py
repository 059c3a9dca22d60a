"""Endpoints for programs; no component of the page stands behind them."""

# Gradio reads the annotations of an endpoint as objects, so they must not be postponed here.

import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from flowsteer.app.desk import Waiting
from flowsteer.app.html import png_data_uri
from flowsteer.app.requests import (
    check_grid_numbers,
    compare_request,
    schedule_request,
    trajectory_request,
)
from flowsteer.app.screens.base import shown_error
from flowsteer.app.screens.compare_table import cards_record
from flowsteer.app.snapshots import Trace
from flowsteer.app.studio import Studio
from flowsteer.flow.grids import GRIDS
from flowsteer.validation import shorten

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


def compare_endpoint(studio: Studio) -> Callable[..., Iterator[dict]]:
    """The function behind `/compare`."""

    def compare(
        prompt: str,
        seed: int = 0,
        noises: int = 1,
        columns: list[dict] | None = None,
        images: bool = True,
    ) -> Iterator[dict]:
        """Draw one prompt with teacher and students from the same noises.

        Streams a growing result; the last one is complete. The cheapest columns come first, and
        distances are null until the teacher's 28-step picture is there. While others come first,
        the result has no cards and `ahead` says how many.

        Args:
            prompt: what to draw, 1 to 1,000 characters.
            seed: of the first noise, a whole number from 0 to 4,294,967,295.
            noises: 1 to 8 consecutive seeds, used by every column.
            columns: up to 6 objects with `network` ("teacher" or a student's name), and if wanted
                `steps` (1 to 100), `scheduler` ("rectified" or "stock") and `guidance` (1, which is
                none, to 100; null for the network's own) and `allow_grid_mismatch` (true to run a
                student on a grid that lacks its window edges). Without it, the default columns.
            images: false leaves out the pictures, which are most of an answer's bytes.

        Returns:
            An object with `prompt`, `seed`, `seeds`, `notes` (what the model will not read),
            `ahead` and `cards`. Each card has `key`, `title`, `seed`, `nfe`, `seconds`,
            `num_inference_steps`, `guidance_scale`, `scheduler`, `student`, `sigmas`, `distance`
            (relative L2 of the latents to those of the 28-step picture), `verdict` (the detector's,
            for the bundled model), `grid_mismatch` and `image`, a PNG as a data URI or null.
        """
        try:
            _check_flag(images)
            chosen = studio.choices.default()
            if columns is not None:
                chosen = studio.choices.columns(columns)
            asked = compare_request(studio.choices, prompt, seed, noises, chosen)
            base = {"prompt": asked.prompt, "seed": asked.seeds[0], "seeds": list(asked.seeds)}
            shown = (-1, -1)
            for news in studio.compare(asked):
                if isinstance(news, Waiting):
                    yield base | {"notes": [], "ahead": news.ahead, "cards": []}
                elif (len(news.cards), len(news.distances)) != shown and news.cards:
                    shown = (len(news.cards), len(news.distances))
                    notes = list(news.notes)
                    cards = cards_record(news, images)
                    yield base | {"notes": notes, "ahead": 0, "cards": cards}
        except Exception as error:
            raise shown_error(error) from error

    return described(compare)


def trajectory_endpoint(studio: Studio) -> Callable[..., dict]:
    """The function behind `/trajectory`."""

    def trajectory(
        prompt: str, seed: int = 0, networks: list[str] | None = None, images: bool = True
    ) -> dict:
        """Follow teacher and students from one noise to their pictures.

        Args:
            prompt: what to draw, 1 to 1,000 characters.
            seed: of the noise, a whole number from 0 to 4,294,967,295.
            networks: students by name, and "teacher" for its 4 unguided steps; the teacher's 28
                guided steps are always there. Without it, all students.
            images: false leaves out the pictures, which are most of an answer's bytes.

        Returns:
            An object with `prompt`, `seed`, `explained` (shares of the variance of the teacher's
            states in its PCA plane) and `paths`. Each path has `key`, `title`, `nfe`, `times` (N +
            1, from 1 to 0), `points` (N + 1 pairs in the plane), `distances` (N + 1, relative L2 to
            the teacher's path at these times), `window_edges` and `x0_hats`, N PNGs as data URIs,
            or none.
        """
        from flowsteer.app.screens.trajectory_html import distances_of, plane_for, points_of

        try:
            _check_flag(images)
            wanted = networks
            if wanted is None:
                wanted = [network.key for network in studio.choices.students[:5]]
            asked = trajectory_request(studio.choices, prompt, seed, wanted)
            last = _last(studio.trajectory(asked))
            plane = plane_for(last)
            points, distances = points_of(last, plane), distances_of(last)
            paths = [
                _path_record(trace, points[key], distances[key], images)
                for key, trace in last.traces.items()
            ]
            return {
                "prompt": asked.prompt,
                "seed": asked.seed,
                "explained": list(plane.explained),
                "paths": paths,
            }
        except Exception as error:
            raise shown_error(error) from error

    return described(trajectory)


def schedule_endpoint(studio: Studio) -> Callable[..., dict]:
    """The function behind `/schedule`."""

    def schedule(
        shift: float = 3.0,
        steps: int = 4,
        prompt: str | None = None,
        seed: int = 0,
        images: bool = True,
    ) -> dict:
        """Compare the stock time grid of diffusers with the rectified one.

        Args:
            shift: of the scheduler, 0.1 to 20; SD3 uses 3.
            steps: network steps N, 1 to 100.
            prompt: if given, the teacher also draws it on both grids.
            seed: of the noise, a whole number from 0 to 4,294,967,295.
            images: false leaves out the pictures, which are most of an answer's bytes.

        Returns:
            An object with `shift`, `steps` and, for `stock` and `rectified`, an object with
            `sigmas` (N + 1, from 1 to 0), `step_sizes` (N), `last_step` (the share of the path that
            the last call covers), and with a prompt `image`, a PNG as a data URI or null, and
            `distance` (relative L2 of the latents to those of the teacher's 28-step picture).
        """
        try:
            _check_flag(images)
            shift, steps = check_grid_numbers(shift, steps)
            result: dict[str, Any] = {"shift": shift, "steps": steps}
            for name, make in GRIDS.items():
                sigmas = make(steps, shift).tolist()
                sizes = [hi - lo for hi, lo in zip(sigmas, sigmas[1:], strict=False)]
                result[name] = {"sigmas": sigmas, "step_sizes": sizes, "last_step": sizes[-1]}
            if prompt is not None:
                asked = schedule_request(studio.choices, prompt, seed, shift, steps)
                last = _last(studio.schedule(asked))
                for name, picture in last.pictures.items():
                    result[name]["image"] = png_data_uri(picture) if images else None
                    result[name]["distance"] = last.distances[name]
            return result
        except Exception as error:
            raise shown_error(error) from error

    return described(schedule)


def described(endpoint: Endpoint) -> Endpoint:
    """An endpoint with each argument's text on one line, which is all that Gradio reads of it."""
    text = re.sub(r"\n {8}(?=\S)", " ", inspect.cleandoc(endpoint.__doc__ or ""))
    head, heading, returns = text.partition("Returns:\n    ")
    endpoint.__doc__ = head + heading + " ".join(returns.split())
    return endpoint


def _check_flag(images: Any) -> None:
    if not isinstance(images, bool):
        raise ValueError(f"images = {shorten(images)} must be true or false")


def _last(stream: Iterator[Any]) -> Any:
    """The last snapshot of a stream that nobody watches.

    Raises:
        RuntimeError: if the app was closed before there was one.
    """
    last = None
    for news in stream:
        last = news
    if last is None or isinstance(last, Waiting):
        raise RuntimeError("the app was closed before the request was done")
    return last


def _path_record(
    trace: Trace, points: list[list[float]], distances: list[float], images: bool
) -> dict[str, Any]:
    return {
        "key": trace.column.key,
        "title": trace.column.title,
        "nfe": trace.path.nfe,
        "times": list(trace.path.times),
        "points": points,
        "distances": distances,
        "window_edges": list(trace.edges),
        "x0_hats": [png_data_uri(frame) for frame in trace.frames] if images else [],
    }
