"""Teacher and students from one noise: type a prompt, pick students, look at their paths."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ipywidgets
import traitlets
from matplotlib.figure import Figure
from torch import Tensor

from flowsteer.comparing import PipelineSet
from flowsteer.generation import Settings, decode, encode, initial_noise, latent_shape
from flowsteer.paths import RecordedPath, distance_along, plane_of, record_path
from flowsteer.plots.students import leaving_figure, plane_figure, strips_figure
from flowsteer.students import bundled_students
from flowsteer.validation import check_prompt
from flowsteer.widgets.base import Explorer

TEACHER = "teacher, 28 guided steps"
UNDISTILLED = "teacher, 4 guided steps"
VIEWS = ("film strip", "paths", "distance")
_KEPT = 64  # paths, 2 MB for each of the teacher's


class StudentExplorer(Explorer):
    """Film strip of the guessed picture, paths in the teacher's plane, or distance to it along t.

    Args:
        pipelines: teacher and students; None loads the bundled ones.
        traits: `prompt`, `seed`, `students` (names of bundled students, or `UNDISTILLED`), `view`
            (one of `VIEWS`) and `look`.

    Raises:
        ValueError: if a student is unknown or the prompt is empty.
        traitlets.TraitError: at a value out of range.
    """

    prompt = traitlets.Unicode("two koalas on a pink background", help="what to draw")
    seed = traitlets.Int(0, min=0, max=2**31 - 1, help="of the noise")
    students = traitlets.Tuple(help="names, in order")
    view = traitlets.Enum(VIEWS, VIEWS[0])

    def __init__(self, pipelines: PipelineSet | None = None, **traits: Any):
        self.pipelines = PipelineSet() if pipelines is None else pipelines
        self._recorded: dict[tuple[str, int, str], RecordedPath] = {}
        traits.setdefault("students", (UNDISTILLED, *bundled_students()))
        super().__init__(**traits)

    def make_controls(self) -> Mapping[str, ipywidgets.ValueWidget]:
        """What to draw, who draws, and how to look at it."""
        names = dict.fromkeys((UNDISTILLED, *bundled_students(), *self.students))
        rows = min(len(names), 5)
        return {
            "prompt": ipywidgets.Text(description="prompt", continuous_update=False),
            "seed": ipywidgets.BoundedIntText(min=0, max=2**31 - 1, description="seed"),
            "students": ipywidgets.SelectMultiple(
                options=tuple(names), description="students", rows=rows
            ),
            "view": ipywidgets.Dropdown(options=VIEWS, description="view"),
        }

    def paths(self) -> dict[str, RecordedPath]:
        """Label -> recorded path, the teacher's first."""
        prompt = check_prompt(self.prompt)
        return {name: self._path(prompt, self.seed, name) for name in (TEACHER, *self.students)}

    def draw(self) -> Figure:
        """The view that is chosen."""
        paths = self.paths()
        if self.view == "film strip":
            teacher = self.pipelines.teacher
            strips = {name: film_strip(teacher, path) for name, path in paths.items()}
            return strips_figure(strips, side=0.75)  # six rows of larger ones fill a notebook
        if self.view == "paths":
            return plane_figure(plane_of(paths[TEACHER].states[:, 0]), paths)
        own = {name: path for name, path in paths.items() if name != TEACHER}
        return leaving_figure(
            {name: (path.times, distance_along(path, paths[TEACHER])) for name, path in own.items()}
        )

    def caption(self) -> str:
        """Cost and final distance of everyone."""
        paths = self.paths()
        words = [f"{TEACHER}: {paths[TEACHER].nfe} calls"]
        for name, path in paths.items():
            if name != TEACHER:
                distance = float(distance_along(path, paths[TEACHER])[-1, 0])
                words.append(f"{name}: {path.nfe} calls, ends {distance:.2f} from the teacher")
        return "; ".join(words) + "."

    def _path(self, prompt: str, seed: int, name: str) -> RecordedPath:
        key = (prompt, seed, name)
        if key not in self._recorded:
            teacher = self.pipelines.teacher
            noise = initial_noise(seed, latent_shape(teacher))[None]
            pipe = self.pipelines.pipeline(None if name in (TEACHER, UNDISTILLED) else name)
            settings = Settings(num_inference_steps=4 if name == UNDISTILLED else None)
            if len(self._recorded) >= _KEPT:
                self._recorded.pop(next(iter(self._recorded)))
            self._recorded[key] = record_path(pipe, encode(teacher, [prompt]), noise, settings)
        return self._recorded[key]


def film_strip(
    teacher: Any, path: RecordedPath, frames: int = 4, picture: int = 0
) -> list[tuple[str, Any]]:
    """The guessed picture x0_hat at some of a path's calls, the first and the last among them.

    Args:
        teacher: decodes.
        path: recorded.
        frames: how many; all of a path with fewer calls.
        picture: which of the batch.

    Returns:
        (words, picture), as `strips_figure` takes them.
    """
    last = len(path.x0_hats) - 1
    chosen = sorted({round(last * i / max(frames - 1, 1)) for i in range(frames)})
    shown: Tensor = path.x0_hats[chosen, picture]
    words = [f"t = {path.times[i]:.2g}" for i in chosen]
    return list(zip(words, decode(teacher, shown), strict=True))
