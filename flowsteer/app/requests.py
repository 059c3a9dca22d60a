"""What visitors ask for, checked on the server: the API bypasses the limits of the widgets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flowsteer.app.networks import MOST_STEPS, TEACHER, Choices
from flowsteer.comparing import Column
from flowsteer.settings import Settings
from flowsteer.validation import check_prompt, check_seed, check_whole_number, shorten

MOST_NOISES = 8
MOST_CALLS = 2000  # network calls of one request; a full house of 8 x 5 default columns takes 640
LEAST_SHIFT, MOST_SHIFT = 0.1, 20.0
TEACHER_PATH_STEPS = 28


@dataclass(frozen=True)
class CompareRequest:
    """A comparison: every column from every noise.

    Args:
        prompt: what to draw.
        seeds: of the noises, consecutive.
        columns: what to draw it with.
    """

    prompt: str
    seeds: tuple[int, ...]
    columns: tuple[Column, ...]


@dataclass(frozen=True)
class TrajectoryRequest:
    """Paths from one noise; the first column is the teacher's in 28 steps."""

    prompt: str
    seed: int
    columns: tuple[Column, ...]


@dataclass(frozen=True)
class ScheduleRequest:
    """Two grids, and the teacher's pictures on them."""

    prompt: str
    seed: int
    shift: float
    steps: int
    column: Column


def compare_request(
    choices: Choices, prompt: Any, seed: Any, noises: Any, columns: Sequence[Column]
) -> CompareRequest:
    """A comparison, if it is in range.

    Raises:
        ValueError: naming value, limit and fix.
    """
    prompt, first = check_prompt(prompt), check_seed(whole(seed))
    count = check_whole_number("noises", whole(noises), 1, MOST_NOISES)
    check_seed(first + count - 1)
    calls = count * sum(planned_nfe(column) for column in columns)
    if calls > MOST_CALLS:
        raise ValueError(
            f"{calls:,} network calls are asked for, the limit is {MOST_CALLS:,}; use fewer noises,"
            " columns or steps"
        )
    return CompareRequest(prompt, tuple(range(first, first + count)), tuple(columns))


def trajectory_request(
    choices: Choices, prompt: Any, seed: Any, networks: Any
) -> TrajectoryRequest:
    """The teacher's path and those of some networks, each in the steps it is made for.

    Args:
        choices: what there is.
        prompt: what to draw.
        seed: of the noise.
        networks: keys, of which "teacher" stands for its 4 unguided steps.

    Raises:
        ValueError: naming value, limit and fix.
    """
    prompt, seed = check_prompt(prompt), check_seed(whole(seed))
    if isinstance(networks, str) or not isinstance(networks, Sequence) or len(networks) > 12:
        raise ValueError(f"networks = {shorten(networks)} must be a list of up to 12 names")
    columns = [choices.column(TEACHER, TEACHER_PATH_STEPS)]
    for key in networks:
        if key == TEACHER:
            columns.append(choices.column(TEACHER, 4, guidance=1.0))
        else:
            known = choices.networks.get(key) if isinstance(key, str) else None
            columns.append(choices.column(key, known.steps if known else 4, guidance=1.0))
    unique = {column.key: column for column in columns}
    return TrajectoryRequest(prompt, seed, tuple(unique.values()))


def check_grid_numbers(shift: Any, steps: Any) -> tuple[float, int]:
    """A shift from 0.1 to 20 and a number of steps.

    Raises:
        ValueError: naming value, limit and fix.
    """
    numeric = isinstance(shift, int | float) and not isinstance(shift, bool)
    if not numeric or not LEAST_SHIFT <= shift <= MOST_SHIFT:  # neither is NaN
        raise ValueError(
            f"shift = {shorten(shift)} must be a number from {LEAST_SHIFT:g} to {MOST_SHIFT:g};"
            " SD3 uses 3"
        )
    return float(shift), check_whole_number("steps", whole(steps), 1, MOST_STEPS)


def schedule_request(
    choices: Choices, prompt: Any, seed: Any, shift: Any, steps: Any
) -> ScheduleRequest:
    """Both grids and their pictures.

    Raises:
        ValueError: naming value, limit and fix.
    """
    prompt, seed = check_prompt(prompt), check_seed(whole(seed))
    shift, steps = check_grid_numbers(shift, steps)
    return ScheduleRequest(prompt, seed, shift, steps, choices.column(TEACHER, steps))


def whole(value: Any) -> Any:
    """4 for a browser's 4.0; all else as it is, for the checks to judge."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def planned_nfe(column: Column) -> int:
    """Network calls that a column's picture will take, known before the model is loaded."""
    settings: Settings = column.settings
    scale = settings.guidance_scale
    guided = settings.student is None if scale is None else scale != 1.0
    return (settings.num_inference_steps or 0) * (2 if guided else 1)
