"""LoRA students: adapters on SD3's transformer that stock diffusers loads."""

from __future__ import annotations

from pathlib import Path
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import SD3Transformer2DModel, StableDiffusion3Pipeline
from peft import LoraConfig
from peft.tuners.lora import Linear
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor, nn

from flowsteer.models.lora_updates import read_updates
from flowsteer.untrusted import read_tensors

ADAPTER = "default"
MERGE_BELOW = 16
"""Channels for each unit of rank, up to which an adapted layer runs merged."""

# attention, feed-forward and modulation of both streams; guidance acts through the modulations too
TARGET_MODULES = [
    *("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"),
    *("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out"),
    *("attn2.to_q", "attn2.to_k", "attn2.to_v", "attn2.to_out.0"),  # SD3.5's, on the image alone
    *("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2"),
    *("norm1.linear", "norm1_context.linear"),
]


def add_lora(
    transformer: SD3Transformer2DModel, rank: int, alpha: float | None = None
) -> LoraConfig:
    """Freeze the transformer and add trainable float32 adapters; they start as no change.

    Args:
        transformer: changed in place.
        rank: of every adapter.
        alpha: the update is scaled by alpha / rank; None means alpha = rank.

    Raises:
        ValueError: if the rank or alpha is not positive.
    """
    if rank < 1 or (alpha is not None and alpha <= 0):
        raise ValueError(f"rank = {rank}, alpha = {alpha} must be positive")
    transformer.requires_grad_(False)
    config = adapter_config(rank, alpha)
    transformer.add_adapter(config)
    train_in_float32(transformer)
    return config


def adapter_config(rank: int, alpha: float | None = None) -> LoraConfig:
    """Adapters on every layer of `TARGET_MODULES`; arguments as in `add_lora`."""
    return LoraConfig(
        r=rank,
        lora_alpha=rank if alpha is None else alpha,
        init_lora_weights="gaussian",
        target_modules=TARGET_MODULES,
    )


def train_in_float32(network: nn.Module) -> None:
    """Keep what is trained in float32: half precision would round small updates away."""
    for parameter in network.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def run_merged(network: nn.Module) -> None:
    """Make adapted layers multiply by W + scale B A instead of by W, A and B in turn.

    The same function, to rounding. With more tokens than channels it is much the faster one in
    training: one product instead of three, and none with a side as thin as the rank. Layers whose
    rank is small beside their width keep peft's way, which has no gradient of W's size.
    """
    for layer in network.modules():
        if isinstance(layer, Linear):
            narrowest = min(layer.in_features, layer.out_features)
            if layer.r[ADAPTER] * MERGE_BELOW >= narrowest:
                layer.forward = MethodType(_merged_forward, layer)


def _merged_forward(layer: Linear, x: Tensor) -> Tensor:
    base = layer.get_base_layer()
    update = layer.lora_B[ADAPTER].weight @ layer.lora_A[ADAPTER].weight
    weight = base.weight + layer.scaling[ADAPTER] * update
    return F.linear(x, weight.to(x.dtype), base.bias)  # a teacher in bf16 has adapters in float32


def merge_lora(transformer: SD3Transformer2DModel) -> None:
    """Add the adapters to the weights and take them out, in place."""
    transformer.fuse_lora()
    transformer.unload_lora()


def save_lora(transformer: nn.Module, config: LoraConfig, folder: str | Path) -> None:
    """Write the adapters in bf16 as `pytorch_lora_weights.safetensors`, with rank and alpha."""
    layers = get_peft_model_state_dict(transformer, adapter_name=ADAPTER)
    StableDiffusion3Pipeline.save_lora_weights(
        str(folder),
        transformer_lora_layers={name: w.to(torch.bfloat16) for name, w in layers.items()},
        transformer_lora_adapter_metadata=config.to_dict(),
    )


def load_lora(transformer: nn.Module, file: str | Path) -> None:
    """Give the adapters that `add_lora` made the weights of a file that `save_lora` wrote.

    Raises:
        ValueError: if the file is damaged, or they are of another rank or scale or for another
            network.
    """
    config: Any = transformer.peft_config[ADAPTER]  # type: ignore[index,union-attr]
    read_updates(file, config.r, config.lora_alpha)
    adapters = get_peft_model_state_dict(transformer, adapter_name=ADAPTER)
    named = {f"transformer.{name}": weight for name, weight in adapters.items()}
    weights = read_tensors(file, named, any_dtype=True)
    plain = {name.removeprefix("transformer."): weight for name, weight in weights.items()}
    set_peft_model_state_dict(transformer, plain, adapter_name=ADAPTER)
