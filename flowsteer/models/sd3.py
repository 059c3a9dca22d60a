"""Stable Diffusion 3 as a velocity field, with its 256 zero tokens folded into one.

Without a T5 encoder, `StableDiffusion3Pipeline` appends 256 zero tokens to every prompt. They
enter every layer alike and receive the same update there, so they stay identical to each other
throughout. Attention to n identical keys equals attention to one of them with log(n) added to its
logit; the fold is exact, and more than doubles the speed of a small model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from diffusers import SD3Transformer2DModel, StableDiffusion3Pipeline
from einops import rearrange
from torch import Tensor, nn

T5_TOKENS = 256  # what the pipeline appends when text_encoder_3 is None


class TextCondition(NamedTuple):
    """What SD3's transformer is told about a prompt."""

    tokens: Tensor  # (b, length, channels)
    pooled: Tensor  # (b, pooled_channels)


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
        v = self.transformer(
            hidden_states=x.to(dtype),
            timestep=1000 * t,
            encoder_hidden_states=cond.tokens.to(dtype),
            pooled_projections=cond.pooled.to(dtype),
            return_dict=False,
        )[0]
        return v.to(x.dtype)


class FoldedJointAttention:
    """Joint attention in which the last text token stands for `copies` equal tokens.

    The layout is SD3's (image tokens, then text tokens), as in Esser et al. 2024, figure 2.
    """

    def __init__(self, copies: int = T5_TOKENS):
        self.copies = copies

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, *args, **kwargs):
        """Attend from and to both streams; a stream of its own when no text is given."""
        image = _heads(attn, attn.to_q, attn.to_k, attn.to_v, hidden_states)
        q, k, v = _normed(image, attn.norm_q, attn.norm_k)
        if encoder_hidden_states is None:  # SD3.5's second, image-only attention
            out = _merge(F.scaled_dot_product_attention(q, k, v))
            return attn.to_out[1](attn.to_out[0](out))

        projections = attn.add_q_proj, attn.add_k_proj, attn.add_v_proj
        text = _heads(attn, *projections, encoder_hidden_states)
        text = _normed(text, attn.norm_added_q, attn.norm_added_k)
        q, k, v = (torch.cat(pair, dim=2) for pair in zip((q, k, v), text, strict=True))
        bias = q.new_zeros(k.shape[2])
        bias[-1:].fill_(math.log(self.copies))  # not "= number", which a GPU waits for
        mask = bias.expand(q.shape[2], -1)
        out = _merge(F.scaled_dot_product_attention(q, k, v, attn_mask=mask))
        image_out, text_out = out.split([hidden_states.shape[1], encoder_hidden_states.shape[1]], 1)
        if not attn.context_pre_only:
            text_out = attn.to_add_out(text_out)
        return attn.to_out[1](attn.to_out[0](image_out)), text_out


def _heads(attn, to_q, to_k, to_v, x):
    """Project x (b, n, c) and split the heads: three of (b, heads, n, c / heads)."""
    split = "b n (heads c) -> b heads n c"
    return tuple(rearrange(to(x), split, heads=attn.heads) for to in (to_q, to_k, to_v))


def _normed(qkv, norm_q, norm_k):
    q, k, v = qkv
    return (norm_q(q) if norm_q else q), (norm_k(k) if norm_k else k), v


def _merge(x):
    return rearrange(x, "b heads n c -> b n (heads c)")


def fold_zero_tokens(transformer: SD3Transformer2DModel, copies: int = T5_TOKENS) -> None:
    """Make the transformer read its last text token as `copies` equal ones, in place.

    Raises:
        ValueError: if `copies` is not positive.
    """
    if copies < 1:
        raise ValueError(
            f"copies = {copies} must be at least 1: the tokens that the last stands for"
        )
    for name, module in transformer.named_modules():
        if name.endswith(".attn"):
            module.set_processor(FoldedJointAttention(copies))


class FoldedStableDiffusion3Pipeline(StableDiffusion3Pipeline):
    """`StableDiffusion3Pipeline` without T5, its zero tokens folded; the pictures are the same.

    Build it with `fold_pipeline`. `save_pretrained` writes an ordinary StableDiffusion3Pipeline.
    """

    def _get_t5_prompt_embeds(self, *args, **kwargs):
        names = ("prompt", "num_images_per_prompt", "max_sequence_length")
        given = dict(zip(names, args, strict=False)) | kwargs
        return super()._get_t5_prompt_embeds(**(given | {"max_sequence_length": 1}))

    def save_pretrained(self, save_directory, **kwargs):
        """Save as stock diffusers expects it: same weights, the stock class's name."""
        StableDiffusion3Pipeline(**self.components).save_pretrained(save_directory, **kwargs)


def fold_pipeline(pipe: StableDiffusion3Pipeline) -> FoldedStableDiffusion3Pipeline:
    """The same pipeline (components shared) in the folded form.

    Raises:
        ValueError: if the pipeline has a T5 encoder, whose tokens are not zeros.
    """
    if pipe.text_encoder_3 is not None:
        raise ValueError(
            "text_encoder_3 is loaded, so its 256 tokens differ and cannot be folded;"
            " load the pipeline with text_encoder_3=None, tokenizer_3=None or use it unfolded"
        )
    fold_zero_tokens(pipe.transformer)
    return FoldedStableDiffusion3Pipeline(**pipe.components)


def load_transformer(pipe: Any, folder: str | Path) -> None:
    """Put the transformer of a full student's folder into its teacher's pipeline.

    It is read in the precision of the one it takes the place of, and folded if the pipeline is.
    """
    transformer = type(pipe.transformer).from_pretrained(
        str(folder),
        subfolder="transformer",
        dtype=pipe.transformer.dtype,
        use_safetensors=True,
        local_files_only=True,
    )
    if isinstance(pipe, FoldedStableDiffusion3Pipeline):
        fold_zero_tokens(transformer)
    pipe.transformer = transformer.to(pipe.transformer.device)


def compile_blocks(blocks: nn.ModuleList) -> None:
    """Compile each block in place: a minute once, then about twice as fast."""
    # teacher and student, with and without gradients, are entries of one cache
    torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
    for block in blocks:
        block.compile(dynamic=False)


def encode_tokens(text_encoders: Sequence[nn.Module], ids: Tensor) -> TextCondition:
    """Token ids (b, length) to the folded condition, by the pipeline's own route.

    Both CLIP encoders read the same ids; their last-but-one hidden states stand side by side, and
    one zero token follows for the 256 of the missing T5. Gradients flow.
    """
    outputs = [encoder(ids, output_hidden_states=True) for encoder in text_encoders]
    tokens = torch.cat([out.hidden_states[-2] for out in outputs], dim=-1)
    pooled = torch.cat([out.text_embeds for out in outputs], dim=-1)
    return TextCondition(F.pad(tokens, (0, 0, 0, 1)), pooled)


@torch.no_grad()
def encode_prompts(pipe: StableDiffusion3Pipeline, prompts: Sequence[str]) -> TextCondition:
    """Prompts, taken as they are, to the condition that `pipe.transformer` reads.

    It is computed, and stays, where the text encoders are.
    """
    # the stock method by name: a subclass may add reading aids that training has no time for
    tokens, _, pooled, _ = StableDiffusion3Pipeline.encode_prompt(
        pipe,
        list(prompts),
        None,
        None,
        device=pipe.text_encoder.device,
        do_classifier_free_guidance=False,
    )
    return TextCondition(tokens, pooled)
