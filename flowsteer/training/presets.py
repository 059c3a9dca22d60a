"""Flags of `flowsteer distill` that were measured together, and what they were worth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Preset:
    """A measured run on the emoji teacher."""

    flags: Mapping[str, Any]
    """By the names of `DistillationConfig`; mixed_precision is always among them."""
    command: str
    """What was measured."""
    machine: str
    result: str
    """By `flowsteer evaluate`; beside it the teacher in as many calls, on the rectified grid."""


GPU = {
    "method": "flowsteer",
    "max_train_steps": 700,
    "train_batch_size": 256,
    "learning_rate": 4e-3,
    "lr_warmup_steps": 20,
    "ema_decay": 0.99,
    "rank": 24,
    "solver": "multistep",  # substeps follow from the method: 4 a window, 16 for ReFlow's one
    "share_at_hi": 0.8,
    "mixed_precision": "bf16",
    "compile": True,
    "logging_steps": 5,
    "dataloader_num_workers": 8,
}
LAPTOP = {
    "method": "ota",  # a critic has too few steps to learn from
    "max_train_steps": 112,
    "train_batch_size": 16,
    "learning_rate": 4e-3,
    "lr_warmup_steps": 10,
    "ema_decay": 0.95,
    "rank": 24,
    "solver": "multistep",
    "substeps": 3,
    "share_at_hi": 1.0,
    "mixed_precision": "no",
    "compile": False,
    "logging_steps": 1,
    "dataloader_num_workers": 0,
}
PRESETS = {
    "laptop": Preset(
        LAPTOP,
        command="flowsteer distill --preset laptop --device cpu",
        machine="two cores of an AMD EPYC, 11 min (18 core-minutes)",
        result="EmojiEval .783, distance .515 (undistilled, unguided: .575, .704); 120 prompts",
    ),
    "gpu": Preset(
        GPU,
        command="flowsteer distill --preset gpu --critic_learning_rate 5e-4",
        machine="NVIDIA H100, 460 s",
        result="EmojiEval .881, distance .363 (undistilled, unguided: .542, .701); 1,200 prompts",
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
