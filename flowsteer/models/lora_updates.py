"""A LoRA file as what it adds to a network's weights, and that sum.

Adapters beside the weights would be switched off by the next LoRA that a user loads. In half
precision the sum is made in float32 and rounded once, which leaves the bundled students' pictures
as near to float32's as adapters do, or nearer.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.utils.torch_utils import unwrap_module
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import get_pattern_key
from torch import Tensor, nn

from flowsteer.models.lora_files import SETTINGS, check_lora_file
from flowsteer.untrusted import Header, parse_json, read_tensors
from flowsteer.validation import shorten

PREFIX = "transformer."
DOWN, UP, ALPHA = ".lora_A.weight", ".lora_B.weight", ".alpha"
PATTERN = re.compile(r"\^?[\w.]+\$?")  # of layer names; peft would run any expression
FAMILY_KEYS = ("modelspec.architecture", "ss_base_model_version")
FAMILY_NAMES = ("stable-diffusion-v3", "stable-diffusion-3", "sd3", "sd_3")
"""How the trainers that write these keys begin the name of Stable Diffusion 3."""


@dataclass(frozen=True, eq=False)
class Update:
    """What a LoRA adds to the weight (out, in) of a layer: scale * up @ down."""

    down: Tensor  # (rank, in)
    up: Tensor  # (out, rank)
    scale: float


def read_updates(
    file: str | Path,
    rank: int | None = None,
    alpha: float | None = None,
    base_models: Collection[str] = (),
) -> dict[str, Update]:
    """The updates in a LoRA file by the name of their layer, such as a student's.

    The scale alpha / rank comes from the file's `alpha` tensors, from the settings that diffusers
    keeps in its metadata, or else from the arguments; where two speak, they must agree. Where none
    does it is 1, as in stock diffusers, with a warning.

    Args:
        file: with the layers of an SD3 transformer, named as `save_lora_weights` names them.
        rank: that is said elsewhere, in `flowsteer.json`.
        alpha: that is said there.
        base_models: names of the model that it may be for; none takes any.

    Raises:
        ValueError: if the file is damaged, holds other layers or another kind of adapter, is for
            another model, or contradicts itself or the arguments.
    """
    header = check_lora_file(file)
    settings = _settings(header)
    _check_family(header, settings, base_models)
    layers = _layers(header)
    weights = read_tensors(file)
    if alpha is None:
        alpha = rank
    _check_agrees(header, settings, layers, rank, alpha)
    updates = {}
    for layer in layers:
        down, up = weights[PREFIX + layer + DOWN], weights[PREFIX + layer + UP]
        scales = _scales(layer, len(down), weights.get(PREFIX + layer + ALPHA), settings, alpha)
        if len(scales) > 1 and not math.isclose(min(scales), max(scales), rel_tol=1e-3):
            raise ValueError(
                f"{header.where} and its student's flowsteer.json say different scales for {layer}:"
                f" {', '.join(f'{scale:g}' for scale in scales)}; write both again"
            )
        updates[layer] = Update(down, up, scales[0] if scales else 1.0)
    if alpha is None and not settings and not any(ALPHA in name for name in header.tensors):
        warnings.warn(
            f"{header.where} says no alpha; its updates are taken as they are, times 1",
            stacklevel=2,
        )
    return updates


def merge_updates(transformer: nn.Module, updates: Mapping[str, Update]) -> None:
    """Add updates to a transformer's weights, in place: in float32, rounded once.

    Weights below adapters and in compiled networks are found. All is checked before any changes.

    Raises:
        ValueError: if the network lacks a layer, or one has another shape.
    """
    network = unwrap_module(transformer)
    modules = dict(network.named_modules())
    targets = {layer: _target(layer, modules, update) for layer, update in updates.items()}
    with torch.no_grad():
        for layer, weight in targets.items():
            update = updates[layer]
            up, down = (part.to(weight.device).float() for part in (update.up, update.down))
            weight.copy_(weight.float() + update.scale * (up @ down))


def _target(layer: str, modules: Mapping[str, nn.Module], update: Update) -> Tensor:
    """The weight that an update is added to."""
    module = modules.get(layer)
    if isinstance(module, BaseTunerLayer):
        module = module.get_base_layer()
    if not isinstance(module, nn.Linear) or not module.weight.is_floating_point():
        raise ValueError(f"the LoRA changes {layer}, which is no layer of this network that can")
    shape = (update.up.shape[0], update.down.shape[-1])
    if update.up.shape[-1] != update.down.shape[0] or module.weight.shape != shape:
        shapes = f"{tuple(update.up.shape)} and {tuple(update.down.shape)}"
        raise ValueError(
            f"the LoRA's matrices {shapes} do not fit the {tuple(module.weight.shape)} of {layer}"
        )
    return module.weight


def _layers(header: Header) -> list[str]:
    """The layers that a file has both matrices of; nothing else may be in it."""
    strangers = [name for name in header.tensors if not name.startswith(PREFIX)]
    if encoders := [name for name in strangers if name.startswith("text_encoder")]:
        raise ValueError(
            f"{header.where} also changes a text encoder ({shorten(encoders[0], 100)}), which"
            " teacher and student share; write it without"
        )
    found: dict[str, set[str]] = {}
    for name in header.tensors:
        ending = next((end for end in (DOWN, UP, ALPHA) if name.endswith(end)), None)
        if ending is None or name in strangers:
            raise ValueError(
                f"{header.where} holds {shorten(name, 100)}; a student's LoRA has"
                f" {PREFIX}LAYER{DOWN} and {PREFIX}LAYER{UP} alone, as save_lora_weights of"
                " diffusers writes them"
            )
        found.setdefault(name.removeprefix(PREFIX).removesuffix(ending), set()).add(ending)
    if not found:
        raise ValueError(f"{header.where} has no layer of the transformer; write it again")
    for layer in found:
        matrices = [header.tensors.get(PREFIX + layer + end) for end in (DOWN, UP)]
        if any(info is None or len(info.shape) != 2 for info in matrices):
            raise ValueError(f"{header.where} lacks one of the two matrices of {layer}")
    return list(found)


def _settings(header: Header) -> dict[str, Any]:
    """The transformer's adapter settings in the metadata; empty without."""
    if SETTINGS not in header.metadata:
        return {}
    values = parse_json(header.metadata[SETTINGS], f"the LoRA settings in {header.where}")
    if not isinstance(values, dict):
        raise ValueError(f"the LoRA settings in {header.where} are no JSON object")
    settings = {k.removeprefix(PREFIX): v for k, v in values.items() if k.startswith(PREFIX)}
    for name in ("use_dora", "lora_bias", "megatron_config", "alora_invocation_tokens"):
        if settings.get(name):
            raise ValueError(f"{header.where} has {name}, which is no plain LoRA")
    for name in settings.get("alpha_pattern") or {}:
        if not PATTERN.fullmatch(name):
            raise ValueError(
                f"{header.where} has {shorten(name)} in alpha_pattern, which must name layers"
            )
    return settings


def _check_family(header: Header, settings: Mapping[str, Any], models: Collection[str]) -> None:
    """Refuse what was trained on another network, where the file says so."""
    mapping = settings.get("auto_mapping")
    named = mapping.get("base_model_class") if isinstance(mapping, dict) else None
    if named not in (None, "SD3Transformer2DModel"):
        raise ValueError(f"{header.where} is for a {shorten(named)}, not an SD3Transformer2DModel")
    for key in FAMILY_KEYS:
        family = header.metadata.get(key)
        if family and not family.lower().startswith(FAMILY_NAMES):
            raise ValueError(f"{header.where} is for another family: {key} = {shorten(family)}")
    base = settings.get("base_model_name_or_path")
    if base and models and base not in models:
        raise ValueError(
            f"{header.where} is for the model {shorten(base, 100)}, its student for {min(models)!r}"
        )


def _check_agrees(
    header: Header,
    settings: Mapping[str, Any],
    layers: list[str],
    rank: int | None,
    alpha: float | None,
) -> None:
    """Hold a file's settings and shapes to what `flowsteer.json` says."""
    pairs = {
        "lora_rank": (rank, settings.get("r")),
        "lora_alpha": (alpha, settings.get("lora_alpha")),
    }
    for name, (said, found) in pairs.items():
        if said is not None and found is not None and said != found:
            raise ValueError(
                f"{header.where} has {name} = {shorten(found)}, its student's flowsteer.json"
                f" {said}; write both again"
            )
    if rank is None or settings.get("rank_pattern"):
        return
    for layer in layers:
        found = header.tensors[PREFIX + layer + DOWN].shape[0]
        if found != rank:
            raise ValueError(
                f"{header.where} has rank {found} at {layer}, its student's flowsteer.json says"
                f" {rank}; write both again"
            )


def _scales(
    layer: str, rank: int, own: Tensor | None, settings: Mapping[str, Any], alpha: float | None
) -> list[float]:
    """The scale of a layer's update, by everyone who says it."""
    scales = [] if own is None else [float(own) / rank]
    if "lora_alpha" in settings:
        pattern = settings.get("alpha_pattern") or {}
        value = pattern.get(get_pattern_key(pattern.keys(), layer), settings["lora_alpha"])
        scales.append(float(value) / (math.sqrt(rank) if settings.get("use_rslora") else rank))
    elif alpha is not None:
        scales.append(alpha / rank)
    if any(not (math.isfinite(scale) and scale > 0) for scale in scales):
        raise ValueError(f"the alpha of {layer} gives the scale {scales[0]:g}, which is no use")
    return scales
