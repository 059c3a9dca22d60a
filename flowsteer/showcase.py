"""What has to be made again when the bundled weights change: the README's pictures, references.

    python -m flowsteer.showcase [NAME ...] [--output_dir DIR]

Without names it makes all of them, in `flowsteer/emoji/results/`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from PIL import Image

from flowsteer.clouds import COMPONENT, mixture_clouds
from flowsteer.comparing import PipelineSet
from flowsteer.evaluation.references import REFERENCES, write_references
from flowsteer.evaluation.runs import load_run
from flowsteer.flow import GRIDS
from flowsteer.generation import Settings, decode, encode, initial_noise, latent_shape
from flowsteer.paths import RecordedPath, record_path
from flowsteer.plots.grids import staircase_figure
from flowsteer.plots.mismatch import story_figure
from flowsteer.plots.results import curves_figure
from flowsteer.plots.students import strips_figure
from flowsteer.plots.style import save_figure
from flowsteer.reproduce.teaching import thinned
from flowsteer.students import bundled_students
from flowsteer.toy import ToyTask
from flowsteer.widgets.student import TEACHER, UNDISTILLED, film_strip

PROMPT = "a 3d koala left of a flat pizza on a pink background"
LOGGED = ("loss", "cosine", "grad_norm", "critic_accuracy_at_0.9")
GUIDANCE = 4.0
NUM_WINDOWS = 4


def save_mismatch(folder: Path) -> Path:
    """`mismatch.svg`: the argument for authentic starts, in the plane."""
    clouds = mixture_clouds(GUIDANCE)
    count = clouds.authentic.shape[1]
    generator = torch.Generator().manual_seed(1)
    x_0 = ToyTask().data(torch.full((count,), COMPONENT), generator)
    return save_figure(story_figure(clouds, x_0, NUM_WINDOWS, 2), folder / "mismatch.svg")


def save_staircase(folder: Path) -> Path:
    """Both time grids at 4 steps and the shift of SD3, as staircases."""
    grids = {name: grid(4, 3.0) for name, grid in GRIDS.items()}
    return save_figure(staircase_figure(grids), folder / "staircase.svg")


def save_students(folder: Path, pipelines: PipelineSet | None = None) -> Path:
    """`students.webp`: what each call of teacher and students points to, from one noise."""
    pipelines = pipelines or PipelineSet()
    rows = {
        name: film_strip(pipelines.teacher, path)
        for name, path in _paths(pipelines, (TEACHER, UNDISTILLED, *bundled_students())).items()
    }
    return save_figure(strips_figure(rows, side=1.5), folder / "students.webp")


def save_animation(
    folder: Path, pipelines: PipelineSet | None = None, student: str = "flowsteer"
) -> Path:
    """`forming.gif`: an emoji forming, the teacher's 28 steps beside the student's 4."""
    from flowsteer.plots.animation import save_pictures

    pipelines = pipelines or PipelineSet()
    paths = _paths(pipelines, (TEACHER, student))
    own, taught = (decode(pipelines.teacher, path.x0_hats[:, 0]) for path in paths.values())
    times, steps = paths[TEACHER].times[:-1], paths[student].times[:-1]
    frames, titles = [], []
    for number in [
        *range(0, len(times) - 1, 2),
        len(times) - 1,
    ]:  # half of them, for the file's size
        # the student's last call so far; it stays while the teacher makes its own
        calls = sum(time >= times[number] - 1e-6 for time in steps)
        frames.append(_beside(own[number], taught[calls - 1]))
        titles.append(f"teacher, {2 * (number + 1)} calls  |  {student}, {calls}")
    return save_pictures(folder / "forming.gif", frames, titles)


def save_curves(folder: Path) -> Path:
    """`curves.svg`: the logs of the runs that taught the bundled students, 28 means each."""
    runs = {name: load_run(name) for name in bundled_students()}
    curves = {name: thinned(run.rows, 28) for name, run in runs.items() if run is not None}
    return save_figure(curves_figure(curves, LOGGED), folder / "curves.svg")


def save_references(folder: Path, pipelines: PipelineSet | None = None) -> Path:
    """`references.safetensors`: where the teacher ends on a few dev prompts."""
    pipelines = pipelines or PipelineSet()
    return write_references(pipelines.teacher, folder / REFERENCES.name)


MADE: dict[str, Callable[[Path], Path]] = {
    "mismatch": save_mismatch,
    "staircase": save_staircase,
    "students": save_students,
    "animation": save_animation,
    "curves": save_curves,
    "references": save_references,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Make what is named, and print the files."""
    parser = argparse.ArgumentParser(prog="python -m flowsteer.showcase", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(MADE))
    parser.add_argument("--output_dir", type=Path, default=REFERENCES.parent)
    options = parser.parse_args(arguments)
    if unknown := sorted(set(options.names) - set(MADE)):
        parser.error(f"{', '.join(unknown)} is unknown; use some of {', '.join(MADE)}")
    options.output_dir.mkdir(parents=True, exist_ok=True)
    for name in options.names or MADE:
        print(MADE[name](options.output_dir))


def _paths(pipelines: PipelineSet, names: Sequence[str]) -> dict[str, RecordedPath]:
    """Recorded paths from the first noise of the showcase's prompt."""
    teacher = pipelines.teacher
    embeds, noise = encode(teacher, [PROMPT]), initial_noise(0, latent_shape(teacher))[None]
    paths = {}
    for name in names:
        pipe = pipelines.pipeline(None if name in (TEACHER, UNDISTILLED) else name)
        settings = Settings(num_inference_steps=4 if name == UNDISTILLED else None)
        paths[name] = record_path(pipe, embeds, noise, settings)
    return paths


def _beside(left: Image.Image, right: Image.Image, gap: int = 8) -> Image.Image:
    both = Image.new("RGB", (left.width + gap + right.width, left.height), "white")
    both.paste(left, (0, 0))
    both.paste(right, (left.width + gap, 0))
    return both


if __name__ == "__main__":
    main()
