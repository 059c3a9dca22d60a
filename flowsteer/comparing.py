"""Teacher and students side by side: one noise, one encoded prompt, one card a column."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from PIL import Image
from torch import Tensor

from flowsteer.families import check_drawn
from flowsteer.generation import (
    GenerationStopped,
    PromptEmbeds,
    Settings,
    check_settings_fit,
    decode,
    encode,
    initial_noise,
    latent_shape,
    sample,
)
from flowsteer.loading import load_pipeline, with_student
from flowsteer.measure.distances import relative_l2
from flowsteer.students import find_student, student_title
from flowsteer.validation import check_prompt, check_seed


@dataclass(frozen=True)
class Column:
    """One column of a comparison.

    Args:
        key: short and unique, for code and file names.
        title: what is written above the picture.
        settings: how its picture is made.
    """

    key: str
    title: str
    settings: Settings


COMPARE_COLUMNS = (
    Column("teacher_28x2", "Teacher, 28 steps", Settings(num_inference_steps=28)),
    Column(
        "teacher_4x2_stock",
        "Teacher, 4 steps, stock scheduler",
        Settings(num_inference_steps=4, scheduler="stock"),
    ),
    Column(
        "teacher_4x2_rectified",
        "Teacher, 4 steps, rectified scheduler",
        Settings(num_inference_steps=4),
    ),
    Column(
        "teacher_4x1_rectified",
        "Teacher, 4 steps, rectified, no guidance",
        Settings(num_inference_steps=4, guidance_scale=1.0),
    ),
    Column(
        "student_4x1",
        "FlowSteer student, 4 steps",
        Settings(student="flowsteer", num_inference_steps=4, guidance_scale=1.0),
    ),
)


@dataclass(frozen=True)
class Card:
    """A column's picture and what it cost.

    Args:
        column: its column, with the settings complete as used.
        image: the picture.
        latents: final latents (c, h, w), float32 on the CPU.
        nfe: network calls.
        seconds: wall time of sampling and decoding; the prompt is encoded once for all columns.
        sigmas: the grid (N + 1,), from 1 to 0.
        distance: relative L2 of the latents to the first column's from the same noise; None for
            the first itself.
        grid_mismatch: whether the grid lacks edges of the student's.
        seed: of its noise.
    """

    column: Column
    image: Image.Image = field(repr=False)
    latents: Tensor = field(repr=False)
    nfe: int
    seconds: float
    sigmas: tuple[float, ...]
    distance: float | None = None
    grid_mismatch: bool = False
    seed: int = 0


class PipelineSet:
    """A teacher's pipeline and its students', which share text encoders and autoencoder.

    Students are loaded at first use and kept. Threads may share a set.

    Args:
        teacher: a teacher's pipeline from `load_pipeline`; None loads the bundled one.

    Raises:
        ValueError: if it is of a family that cannot be drawn.
    """

    def __init__(self, teacher: Any = None):
        self.teacher = load_pipeline() if teacher is None else teacher
        check_drawn(self.teacher)
        self._students: dict[str, Any] = {}
        self._loading = threading.Lock()

    def pipeline(self, student: str | os.PathLike[str] | None) -> Any:
        """The teacher's pipeline for None and "none", or else the student's.

        Raises:
            ValueError: if the student is unknown or does not fit the teacher.
        """
        found = find_student(student)
        if found is None:
            return self.teacher
        with self._loading:
            if found.name not in self._students:
                self._students[found.name] = with_student(self.teacher, found.name)
            return self._students[found.name]


def columns_for(student: str | None, columns: Sequence[Column] = COMPARE_COLUMNS) -> list[Column]:
    """The columns with another student in place of "flowsteer"; None leaves students out."""
    chosen = []
    for column in columns:
        if column.settings.student is None:
            chosen.append(column)
        elif student is not None and student.lower() != "none":
            settings = replace(column.settings, student=student)
            title = column.title
            if student != column.settings.student:
                title = f"Student {student_title(student)}, 4 steps"
            chosen.append(replace(column, title=title, settings=settings))
    return chosen


def is_reference(column: Column, teacher: Any) -> bool:
    """Whether a column is the teacher's full 28 steps, which distances are measured to."""
    settings, full = column.settings, COMPARE_COLUMNS[0].settings
    return settings.student is None and settings.resolve(teacher) == full.resolve(teacher)


def compare(
    pipelines: PipelineSet,
    prompt: str,
    seed: int | Sequence[int] = 0,
    columns: Sequence[Column] = COMPARE_COLUMNS,
    should_stop: Callable[[], bool] | None = None,
) -> Iterator[Card]:
    """Cards as they get ready, column by column, all from the same noises and one encoded prompt.

    All input is checked, and all students loaded, before the first network call. Pictures are made
    one at a time, so that none depends on what else is asked for.

    Args:
        pipelines: the teacher and its students.
        prompt: what to draw.
        seed: of the noise; several give one card a column and seed.
        columns: the first is the one that distances are measured to.
        should_stop: asked after every step; when true, the stream ends.

    Raises:
        ValueError: if an argument is out of range or a student unknown.
    """
    prompt = check_prompt(prompt)
    seeds = [check_seed(number) for number in (seed if isinstance(seed, Sequence) else [seed])]
    if not columns or not seeds:
        raise ValueError("columns or seeds are empty; give at least one column and one seed")
    work = [prepare_column(pipelines, column) for column in columns]
    return _cards(pipelines.teacher, prompt, seeds, work, should_stop)


def prepare_column(pipelines: PipelineSet, column: Column) -> tuple[Column, Any]:
    """A column with its settings complete, and the pipeline that draws it.

    Raises:
        ValueError: if a setting is out of range, or the grid lacks an edge of the student's.
    """
    pipe = pipelines.pipeline(column.settings.student)
    settings = column.settings.resolve(pipe)
    check_settings_fit(pipe, settings)
    return replace(column, settings=settings), pipe


def _cards(
    teacher: Any,
    prompt: str,
    seeds: list[int],
    work: list[tuple[Column, Any]],
    should_stop: Callable[[], bool] | None,
) -> Iterator[Card]:
    embeds = encode(teacher, [prompt])
    shape = latent_shape(teacher)
    references: dict[int, Tensor] = {}
    for column, pipe in work:
        for seed in seeds:
            try:
                card = draw_card(column, pipe, embeds, initial_noise(seed, shape), should_stop)
            except GenerationStopped:
                return
            latents, distance = card.latents[None], None
            if seed in references:
                distance = relative_l2(latents, references[seed]).item()
            references.setdefault(seed, latents)
            yield replace(card, distance=distance, seed=seed)


def draw_card(
    column: Column,
    pipe: Any,
    embeds: PromptEmbeds,
    noise: Tensor,
    should_stop: Callable[[], bool] | None = None,
) -> Card:
    """One picture from noise (c, h, w), without its distance to any other.

    Args:
        column: with settings that are complete.
        pipe: its pipeline.
        embeds: one prompt from `encode`.
        noise: where it starts.
        should_stop: asked after every step.

    Raises:
        GenerationStopped: when `should_stop()` is true after a step.
    """
    start = time.perf_counter()
    result = sample(pipe, embeds, noise[None], column.settings, should_stop=should_stop)
    image = decode(pipe, result.latents)[0]
    latents = result.latents[0].float().cpu()
    seconds = time.perf_counter() - start
    return Card(
        column=column,
        image=image,
        latents=latents,
        nfe=result.nfe,
        seconds=seconds,
        sigmas=result.sigmas,
        grid_mismatch=result.grid_mismatch,
    )
