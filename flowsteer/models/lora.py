"""LoRA students: adapters on SD3's transformer that stock diffusers loads."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import SD3Transformer2DModel, StableDiffusion3Pipeline
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import nn

# attention, feed-forward and modulation of both streams; guidance acts through the modulations too
TARGET_MODULES = [
    *("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"),
    *("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out"),
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


def save_lora(transformer: nn.Module, config: LoraConfig, folder: str | Path) -> None:
    """Write the adapters in bf16 as `pytorch_lora_weights.safetensors`, with rank and alpha."""
    layers = get_peft_model_state_dict(transformer, adapter_name="default")
    StableDiffusion3Pipeline.save_lora_weights(
        str(folder),
        transformer_lora_layers={name: w.to(torch.bfloat16) for name, w in layers.items()},
        transformer_lora_adapter_metadata=config.to_dict(),
    )


def load_lora(transformer: nn.Module, file: str | Path) -> None:
    """Give the adapters that `add_lora` made the weights of a file that `save_lora` wrote.

    Raises:
        ValueError: if they are of another rank, or for another network.
    """
    prefix = "transformer."
    weights = {k.removeprefix(prefix): w for k, w in load_file(file).items()}
    try:
        outcome = set_peft_model_state_dict(transformer, weights, adapter_name="default")
    except RuntimeError as error:
        raise ValueError(f"{file} does not fit the adapters: {error}") from error
    if outcome.unexpected_keys or any("lora_" in name for name in outcome.missing_keys):
        raise ValueError(f"{file} holds adapters for other layers than this network's")
