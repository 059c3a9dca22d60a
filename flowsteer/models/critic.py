"""The critic's backbone: the first blocks of an SD3 teacher."""

from __future__ import annotations

import copy
from typing import Any, Literal

import torch
from diffusers import SD3Transformer2DModel
from peft import inject_adapter_in_model
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from flowsteer.distill.critic import Heads, Logits, TrajectoryCritic
from flowsteer.models.lora import adapter_config, train_in_float32
from flowsteer.models.sd3 import TextCondition, attended

Training = Literal["full", "frozen", "lora"]


class SD3Backbone(nn.Module):
    """The first blocks of an SD3 transformer, copied: the teacher stays as it is.

    Features are the image tokens after each block, the conditioning is the embedding of time and
    pooled prompt that modulates the blocks. If the transformer folds, so does the backbone.

    Args:
        transformer: the teacher's.
        depth: blocks to copy; None means half of them (FlowSteer's ablation: 12 of 24 are best).
        training: "full" trains all that is copied, in float32; "frozen" nothing; "lora" adapters.
        rank: of the adapters.
        gradient_checkpointing: recompute the blocks' activations in the backward pass.

    Raises:
        ValueError: if the depth, rank or `training` is out of range, or if the transformer carries
            adapters.
    """

    def __init__(
        self,
        transformer: SD3Transformer2DModel,
        depth: int | None = None,
        training: Training = "full",
        rank: int = 32,
        gradient_checkpointing: bool = False,
    ):
        super().__init__()
        blocks = transformer.transformer_blocks
        self.depth = max(1, len(blocks) // 2) if depth is None else depth
        if not 1 <= self.depth <= len(blocks):
            raise ValueError(
                f"depth = {depth}: the teacher has {len(blocks)} blocks, give 1 to that"
            )
        if getattr(transformer, "peft_config", None):
            raise ValueError(
                "the transformer carries adapters, which a critic would train as well: build the"
                " critic before they are added, or merge them with fuse_lora() and unload_lora()"
            )
        self.gradient_checkpointing = gradient_checkpointing
        self.width = self.cond_width = transformer.inner_dim
        self.pos_embed = copy.deepcopy(transformer.pos_embed)
        self.time_text_embed = copy.deepcopy(transformer.time_text_embed)
        self.context_embedder = copy.deepcopy(transformer.context_embedder)
        self.blocks = copy.deepcopy(blocks[: self.depth])
        self._set_training(training, rank)

    def _set_training(self, training: Training, rank: int) -> None:
        if training == "full":
            self.float().requires_grad_(True)
        elif training == "frozen":
            self.requires_grad_(False)
        elif training == "lora":
            self._add_adapters(rank)
        else:
            raise ValueError(f"training = {training!r} is unknown; use full, frozen or lora")
        last = self.blocks[-1]
        # nothing reads the text that leaves the last block
        for unread in (
            *(last.attn.add_q_proj, last.attn.norm_added_q, last.attn.to_add_out),
            last.ff_context,
        ):
            if unread is not None:
                unread.requires_grad_(False)

    def _add_adapters(self, rank: int) -> None:
        if rank < 1:
            raise ValueError(f"rank = {rank} must be at least 1")
        inject_adapter_in_model(adapter_config(rank), self)  # freezes all else
        train_in_float32(self)

    def forward(self, x: Tensor, t: Tensor, cond: TextCondition) -> tuple[list[Tensor], Tensor]:
        """Features of states x (b, c, h, w) at times t (b,), as `Backbone` says; float32."""
        dtype = self.pos_embed.proj.weight.dtype
        image = self.pos_embed(x.to(dtype)).contiguous()
        tokens, attention = attended(cond, self.blocks)
        text = self.context_embedder(tokens.to(dtype))
        embedding = self.time_text_embed(1000 * t, cond.pooled.to(dtype))
        features = []
        for block in self.blocks:
            if self.gradient_checkpointing and torch.is_grad_enabled():
                # stand-ins that the parameters have now would be gone when the block runs again
                parameters = dict(block.named_parameters())
                inputs = (block, parameters, image, text, embedding, attention)
                text, image = checkpoint(_run_block, *inputs, use_reentrant=False)
            else:
                text, image = block(image, text, embedding, attention)
            features.append(image.float())
        return features, embedding.float()


def _run_block(
    block: nn.Module, parameters: dict[str, Tensor], *inputs: Any
) -> tuple[Tensor | None, Tensor]:
    return functional_call(block, parameters, inputs)


def build_critic(
    transformer: SD3Transformer2DModel,
    depth: int | None = None,
    training: Training = "full",
    heads: Heads = "last",
    logits: Logits = "token",
    rank: int = 32,
    gradient_checkpointing: bool = False,
) -> TrajectoryCritic:
    """A critic made of a teacher; arguments and errors as in `SD3Backbone`, `TrajectoryCritic`."""
    backbone = SD3Backbone(transformer, depth, training, rank, gradient_checkpointing)
    return TrajectoryCritic(backbone, heads, logits)
