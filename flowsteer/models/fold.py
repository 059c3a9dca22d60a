"""The fold: equal tokens at the end of SD3's text, read as one.

Without a T5 encoder, `StableDiffusion3Pipeline` appends 256 zero tokens to every prompt. They
enter every layer alike and receive the same update there, so they stay identical to each other
throughout. Attention to n identical keys equals attention to one of them with log(n) added to its
logit; the fold is exact, and more than doubles the speed of a small model.

A transformer that may fold is still the stock one to all who call it. It counts the equal tokens
that it is given, in whatever pipeline, and folds only what nobody can tell from the unfolded.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import SD3Transformer2DModel
from diffusers.models.attention_processor import JointAttnProcessor2_0
from einops import rearrange
from torch import Tensor, nn


class FoldedJointAttention(JointAttnProcessor2_0):
    """SD3's joint attention, in which the last text token may stand for several equal ones.

    How many is said in the call, by `joint_attention_kwargs={"copies": n}` of the transformer;
    without that word it is the stock attention. The layout is SD3's (image tokens, then text
    tokens), as in Esser et al. 2024, figure 2.
    """

    def __call__(
        self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, copies=1
    ):
        """Attend from and to both streams; a stream of its own when no text is given."""
        if copies == 1 or encoder_hidden_states is None:  # SD3.5's second one reads no text
            return super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask)
        image = _heads(attn, attn.to_q, attn.to_k, attn.to_v, hidden_states)
        image = _normed(image, attn.norm_q, attn.norm_k)
        projections = attn.add_q_proj, attn.add_k_proj, attn.add_v_proj
        text = _heads(attn, *projections, encoder_hidden_states)
        text = _normed(text, attn.norm_added_q, attn.norm_added_k)
        q, k, v = (torch.cat(pair, dim=2) for pair in zip(image, text, strict=True))
        bias = q.new_zeros(k.shape[2])
        bias[-1:].fill_(math.log(copies))  # not "= number", which a GPU waits for
        mask = bias.expand(q.shape[2], -1)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        out = rearrange(out, "b heads n c -> b n (heads c)")
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


def fold_equal_tokens(transformer: SD3Transformer2DModel) -> None:
    """Let the transformer fold the equal tokens that end its text, in place.

    Every call then gives what the stock transformer gives. It folds where that cannot be told:
    not while training (a LoRA's dropout treats equal tokens differently), nor where the text has a
    gradient, or a compiler or recorder would take this call's count for that of every call.
    """
    if _fold not in transformer._forward_pre_hooks.values():
        transformer.register_forward_pre_hook(_fold, with_kwargs=True)
    for block in transformer.transformer_blocks:
        for attention in (block.attn, block.attn2):
            if attention is not None and type(attention.processor) is JointAttnProcessor2_0:
                attention.set_processor(FoldedJointAttention())


def can_fold(blocks: Iterable[nn.Module]) -> bool:
    """Whether all of a transformer's blocks know `copies`; other processors may have been set."""
    for block in blocks:
        first, second = (getattr(block, name, None) for name in ("attn", "attn2"))
        if not isinstance(getattr(first, "processor", None), FoldedJointAttention):
            return False
        if second is not None and not isinstance(second.processor, FoldedJointAttention):
            return False
    return True


def equal_at_end(tokens: Tensor) -> int:
    """How many tokens at the end of all texts (b, length, channels) equal the last one."""
    other = (tokens != tokens[:, -1:]).any(-1).any(0).nonzero()
    return tokens.shape[1] - (int(other[-1]) + 1 if len(other) else 0)


def _fold(
    transformer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """Before a call: leave one of the equal tokens, and say how many there were."""
    tokens = kwargs.get("encoder_hidden_states")
    given = kwargs.get("joint_attention_kwargs") or {}
    if tokens is None or "copies" in given or not _is_plain_call(transformer, tokens):
        return None
    copies = equal_at_end(tokens)
    if copies < 2:
        return None
    folded = {
        "encoder_hidden_states": tokens[:, : tokens.shape[1] - copies + 1],
        "joint_attention_kwargs": given | {"copies": copies},
    }
    return args, kwargs | folded


def _is_plain_call(transformer: Any, tokens: Tensor) -> bool:
    """Whether the tokens can be looked at, and folding them would not be noticed."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or transformer.training:
        return False
    if type(tokens) is not Tensor or tokens.is_meta or tokens.requires_grad:
        return False
    if tokens.is_cuda and torch.cuda.is_current_stream_capturing():
        return False
    return can_fold(transformer.transformer_blocks)
