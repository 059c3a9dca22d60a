"""Real networks behind the `VelocityField` protocol."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowsteer.models.sd3 import (
        FoldedCondition,
        SD3Field,
        TextCondition,
        compile_blocks,
        encode_prompts,
        encode_tokens,
        fold_equal_tokens,
        fold_pipeline,
    )

__all__ = [
    "FoldedCondition",
    "SD3Field",
    "TextCondition",
    "compile_blocks",
    "encode_prompts",
    "encode_tokens",
    "fold_pipeline",
    "fold_equal_tokens",
]


def __getattr__(name: str) -> Any:
    """SD3's parts at first use, so that networks for the plane come without diffusers."""
    if name not in __all__:
        raise AttributeError(f"module 'flowsteer.models' has no attribute {name!r}")
    return getattr(importlib.import_module("flowsteer.models.sd3"), name)
