"""Stable Diffusion 3 as a velocity field, its zero tokens folded by `flowsteer.models.fold`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from diffusers import StableDiffusion3Pipeline
from diffusers.utils.torch_utils import unwrap_module
from torch import Tensor, nn

from flowsteer.models.fold import can_fold, fold_equal_tokens
from flowsteer.models.folders import check_network_folder
from flowsteer.untrusted import check_finite, name_of

T5_TOKENS = 256  # zeros that the pipeline appends when text_encoder_3 is None


class TextCondition(NamedTuple):
    """What SD3's transformer is told about a prompt."""

    tokens: Tensor  # (b, length, channels)
    pooled: Tensor  # (b, pooled_channels)


class FoldedCondition(TextCondition):
    """A condition whose last token stands for the 256 zero tokens."""

    __slots__ = ()


class SD3Field:
    """An SD3 transformer as a `VelocityField`: `(x, t, TextCondition) -> v`.

    Args:
        transformer: the network; its weights' dtype is the dtype it computes in.
    """

    def __init__(self, transformer: nn.Module):
        self.transformer = transformer

    def __call__(self, x: Tensor, t: Tensor, cond: TextCondition) -> Tensor:
        """Velocity at states x (b, c, h, w) and times t (b,), in the dtype of x."""
        dtype = next(self.transformer.parameters()).dtype
        tokens, attention = attended(cond, self.transformer.transformer_blocks)  # type: ignore[arg-type]
        v = self.transformer(
            hidden_states=x.to(dtype),
            timestep=1000 * t,
            encoder_hidden_states=tokens.to(dtype),
            pooled_projections=cond.pooled.to(dtype),
            joint_attention_kwargs=attention,
            return_dict=False,
        )[0]
        return v.to(x.dtype)


def attended(
    cond: TextCondition, blocks: Iterable[nn.Module]
) -> tuple[Tensor, dict[str, int] | None]:
    """A condition's tokens as the blocks can read them, and their `joint_attention_kwargs`.

    Blocks that can fold are told what the last token stands for, so that they need not look, which
    a GPU would wait for; others are given all 256.
    """
    folded = isinstance(cond, FoldedCondition)
    if can_fold(blocks):
        return cond.tokens, {"copies": T5_TOKENS if folded else 1}
    if not folded:
        return cond.tokens, None
    repeated = cond.tokens[:, -1:].expand(-1, T5_TOKENS - 1, -1)
    return torch.cat([cond.tokens, repeated], dim=1), None


def fold_pipeline(pipe: StableDiffusion3Pipeline) -> StableDiffusion3Pipeline:
    """The pipeline itself, after `fold_equal_tokens` on its transformer."""
    fold_equal_tokens(pipe.transformer)
    return pipe


def load_transformer(pipe: Any, folder: str | Path) -> None:
    """Put the transformer of a full student's folder into its teacher's pipeline.

    It is read in the precision of the one it takes the place of, and folds if that does.

    Raises:
        ValueError: if a file is damaged, configuration and weights do not fit each other, or it is
            another network than the teacher's.
    """
    check_network_folder(Path(folder) / "transformer")
    own = unwrap_module(pipe.transformer)
    config = type(own).load_config(str(folder), subfolder="transformer", local_files_only=True)
    for name, value in own.config.items():
        found = config.get(name, value)
        if not name.startswith("_") and _plain(found) != _plain(value):
            raise ValueError(f"its transformer has {name} = {found}, and the teacher's {value}")
    transformer = type(own).from_pretrained(
        str(folder),
        subfolder="transformer",
        dtype=own.dtype,
        use_safetensors=True,
        local_files_only=True,
    )
    check_finite(dict(transformer.named_parameters()), f"the transformer of {name_of(folder)}")
    if can_fold(own.transformer_blocks):
        fold_equal_tokens(transformer)
    pipe.transformer = transformer.to(own.device)


def _plain(value: Any) -> Any:
    """A configuration's value as JSON has it."""
    return list(value) if isinstance(value, tuple) else value


def compile_blocks(blocks: nn.ModuleList) -> None:
    """Compile each block in place: a minute once, then about twice as fast."""
    # teacher and student, with and without gradients, are entries of one cache
    torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
    for block in blocks:
        block.compile(dynamic=False)


def encode_tokens(text_encoders: Sequence[nn.Module], ids: Tensor) -> FoldedCondition:
    """Token ids (b, length) to the folded condition, by the pipeline's own route.

    Both CLIP encoders read the same ids; their last-but-one hidden states stand side by side, and
    one zero token follows for the 256 of the missing T5. Gradients flow.
    """
    outputs = [encoder(ids, output_hidden_states=True) for encoder in text_encoders]
    tokens = torch.cat([out.hidden_states[-2] for out in outputs], dim=-1)
    pooled = torch.cat([out.text_embeds for out in outputs], dim=-1)
    return FoldedCondition(F.pad(tokens, (0, 0, 0, 1)), pooled)


def condition_form(pipe: StableDiffusion3Pipeline) -> type[TextCondition]:
    """What `encode_prompts` returns: folded without T5, if the pipeline's transformer can fold."""
    if pipe.text_encoder_3 is None and can_fold(pipe.transformer.transformer_blocks):
        return FoldedCondition
    return TextCondition


@torch.no_grad()
def encode_prompts(pipe: StableDiffusion3Pipeline, prompts: Sequence[str]) -> TextCondition:
    """Prompts, taken as they are, to the condition that `pipe.transformer` reads.

    It is computed, and stays, where the text encoders are.
    """
    form = condition_form(pipe)
    # the stock method by name: a subclass may add reading aids that training has no time for
    tokens, _, pooled, _ = StableDiffusion3Pipeline.encode_prompt(
        pipe,
        list(prompts),
        None,
        None,
        device=pipe.text_encoder.device,
        do_classifier_free_guidance=False,
        max_sequence_length=1 if form is FoldedCondition else T5_TOKENS,
    )
    return form(tokens, pooled)
