"""How large a reproduction is, and the rows of its ablation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flowsteer.emoji.prompts import TASKS
from flowsteer.evaluation.solvers import REFERENCE_SUBSTEPS, SUBSTEPS
from flowsteer.training.presets import PRESETS as MEASURED

TABLES = {
    "0": "what there is to distil",
    "1": "mismatch of interpolated starts",
    "2": "stock against rectified scheduler",
    "tuning": "learning rates, chosen on dev prompts",
    "3": "ablation",
    "4": "beyond the paper",
    "5": "solvers of the teacher's rollout",
}
RECIPE = MEASURED["gpu"].flags
SHARED = (
    *("train_batch_size", "learning_rate", "lr_warmup_steps", "rank", "solver"),
    *("share_at_hi", "mixed_precision"),
)
"""What every row has of the recipe behind the bundled students."""
NUM_WINDOWS = 4  # K of every row but ReFlow's: the paper's four steps

Flags = Mapping[str, Any]
"""Flags of `flowsteer distill` by name."""


@dataclass(frozen=True)
class Row:
    """One way to train, as a row of the ablation."""

    label: str
    flags: Flags
    paper: tuple[float, float] | None = None
    """PickScore and HPSv2 that the paper reports for it (SD3-Medium)."""

    @property
    def grid(self) -> str:
        """On whose edges it trains and runs."""
        return self.flags.get("grid", "rectified")


# Table 5 of the paper makes each addition alone; "OTA +scheduler" and ReFlow are ours.
ROWS = {
    "perflow": Row("PeRFlow", {"method": "perflow", "grid": "stock"}, (22.19, 26.36)),
    "perflow-ota": Row("+OTA", {"method": "ota", "grid": "stock"}, (22.23, 26.79)),
    "perflow-adversarial": Row(
        "+adversarial",
        {"method": "perflow", "grid": "stock", "adversarial": True},
        (22.18, 27.73),
    ),
    "perflow-scheduler": Row("+scheduler", {"method": "perflow"}, (22.50, 27.75)),
    "all": Row("all (FlowSteer)", {"method": "flowsteer"}, (22.39, 28.60)),
    "ota-scheduler": Row("OTA +scheduler", {"method": "ota"}),
    "reflow": Row("ReFlow, K = 1", {"method": "reflow"}),
}


@dataclass(frozen=True)
class Variation:
    """A flag beyond the paper's recipe and the values to try, one run each."""

    row: str
    """Of `ROWS`, whose runs have all else in common."""
    flag: str
    values: tuple[float | str, ...]


VARIATIONS = (
    Variation("ota-scheduler", "share_at_hi", (0.0, 0.8, 1.0)),
    Variation("ota-scheduler", "share_on_policy", (0.0, 0.5, 1.0)),
    Variation("all", "critic_states", ("step", "rollout")),
    Variation("all", "critic_logits", ("token", "pooled")),
)


@dataclass(frozen=True)
class Preset:
    """Sizes of a reproduction.

    Raises:
        ValueError: if a size does not divide as it must.
    """

    model: str
    """"emoji", or "tiny": random weights of the same architecture, for tests."""
    flags: Flags
    """Of every training run, beside its row's."""
    num_prompts: int
    """Test prompts; an equal share of each task."""
    dev_prompts: int
    """Dev prompts that learning rates are chosen on."""
    seeds: tuple[int, ...]
    """Training seeds of the ablation."""
    checkpoints: int
    """Kept in a run of the ablation; those of its second half are evaluated."""
    tuning_steps: int
    learning_rates: tuple[float, ...]
    """The grid that every row is tuned on."""
    step_counts: tuple[int, ...]
    """N of the scheduler's table."""
    variations: tuple[Variation, ...] = VARIATIONS
    solver_prompts: int = 120
    """Dev prompts of the solvers' table."""
    solver_substeps: Mapping[str, Sequence[int]] = field(default_factory=lambda: SUBSTEPS)
    """Solver -> the substeps a window to try."""
    reference_substeps: int = REFERENCE_SUBSTEPS
    """Heun's steps a window that stand for the exact path."""
    sheet: int = 6
    """Pictures a row on the picture sheets: of the first prompts, one a task."""

    def __post_init__(self) -> None:
        for name in ("num_prompts", "dev_prompts", "sheet"):
            if getattr(self, name) < 1 or getattr(self, name) % len(TASKS):
                raise ValueError(
                    f"{name} = {getattr(self, name)} must be a multiple of the {len(TASKS)} tasks"
                )
        if self.steps % self.checkpoints or self.sheet > self.num_prompts:
            raise ValueError(
                f"{self.steps} steps and {self.checkpoints} checkpoints, {self.sheet} of "
                f"{self.num_prompts} pictures: checkpoints must be even, a sheet within the prompts"
            )

    @property
    def steps(self) -> int:
        """Optimiser steps of a run of the ablation."""
        return self.flags["max_train_steps"]


PRESETS = {
    "full": Preset(
        model="emoji",
        flags={name: RECIPE[name] for name in SHARED}
        | {
            "max_train_steps": 160,
            "ema_decay": 0.97,
            "logging_steps": 5,
            "substeps": 4,
            "guidance_min": 3.5,
            "guidance_max": 4.5,
        },
        num_prompts=1200,
        dev_prompts=600,
        seeds=(0, 1, 2),
        checkpoints=4,
        tuning_steps=80,
        learning_rates=(2e-3, 4e-3),
        step_counts=(2, 3, 4, 6, 8, 16, 28),
    ),
    "smoke": Preset(
        model="tiny",
        flags={
            "max_train_steps": 2,
            "train_batch_size": 2,
            "learning_rate": 1e-3,
            "lr_warmup_steps": 0,
            "ema_decay": 0.5,
            "rank": 2,
            "substeps": 1,
            "share_at_hi": 0.5,
        },
        num_prompts=6,
        dev_prompts=6,
        seeds=(0, 1),
        checkpoints=2,
        tuning_steps=1,
        learning_rates=(1e-3, 1e-2),
        step_counts=(2, 4, 8),
        variations=(
            Variation("ota-scheduler", "share_at_hi", (0.0, 1.0)),
            Variation("ota-scheduler", "share_on_policy", (1.0,)),
            Variation("all", "critic_states", ("rollout",)),
        ),
        solver_prompts=6,
        solver_substeps={"euler": (1, 2, 4), "heun": (1, 2), "multistep": (1, 2, 4)},
        reference_substeps=8,
    ),
}


def find_preset(name: str) -> Preset:
    """The preset of a name.

    Raises:
        ValueError: if there is none.
    """
    if name not in PRESETS:
        raise ValueError(f"preset = {name!r} is unknown; use one of {', '.join(PRESETS)}")
    return PRESETS[name]
