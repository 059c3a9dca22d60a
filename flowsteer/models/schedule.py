"""Which time grids of a teacher the windows' edges follow: one constant shift and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flowsteer.flow.grids import TRAIN_TIMESTEPS
from flowsteer.untrusted import read_json
from flowsteer.validation import shorten

FOLLOWED: Mapping[str, Any] = {
    "use_dynamic_shifting": False,
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
    "shift_terminal": None,
    "invert_sigmas": False,
    "stochastic_sampling": False,
    "num_train_timesteps": TRAIN_TIMESTEPS,
}
"""Fields of FlowMatchEulerDiscreteScheduler that would move the times, or leave the path, and the
values with which they do not."""
MOST_SHIFT = 100.0


def check_schedule(config: Mapping[str, Any], model: str) -> None:
    """Make sure that a teacher's times are those that its windows are cut at.

    Args:
        config: of its scheduler; what is missing has the scheduler's default.
        model: its name, for the message.

    Raises:
        ValueError: naming the field that the edges would not follow.
    """
    for name, followed in FOLLOWED.items():
        value = config.get(name, followed)
        if value or followed:  # None and False are the same to the scheduler
            if value == followed:
                continue
            raise ValueError(
                f"model = {shorten(model)}: its scheduler has {name} = {shorten(value)}, while"
                f" distillation and evaluation know times of {name} = {followed} alone; use a model"
                " whose scheduler has a constant shift"
            )
    shift = config.get("shift", 1.0)
    number = isinstance(shift, int | float) and not isinstance(shift, bool)
    if not number or not 0 < shift <= MOST_SHIFT:
        raise ValueError(
            f"model = {shorten(model)}: its scheduler has shift = {shorten(shift)}, which must be a"
            f" number above 0 to {MOST_SHIFT:g}"
        )


def check_schedule_of(source: str, model: str) -> None:
    """`check_schedule` of a pipeline folder before any of it is loaded; other sources pass.

    Raises:
        ValueError: as `check_schedule`, or if the scheduler's config is no JSON object.
    """
    file = Path(source) / "scheduler" / "scheduler_config.json"
    if not file.is_file():
        return
    config = read_json(file, "a scheduler's config")
    if not isinstance(config, dict):
        raise ValueError(f"{str(file)!r} must hold a JSON object")
    check_schedule(config, model)
