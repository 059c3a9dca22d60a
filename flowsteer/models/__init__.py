"""Real networks behind the `VelocityField` protocol."""

from flowsteer.models.sd3 import (
    FoldedStableDiffusion3Pipeline,
    SD3Field,
    TextCondition,
    compile_blocks,
    encode_prompts,
    encode_tokens,
    fold_pipeline,
    fold_zero_tokens,
)

__all__ = [
    "FoldedStableDiffusion3Pipeline",
    "SD3Field",
    "TextCondition",
    "compile_blocks",
    "encode_prompts",
    "encode_tokens",
    "fold_pipeline",
    "fold_zero_tokens",
]
