"""The bundled teacher's final latents on a few dev prompts: shipped, to hold others against.

Final latents cost 56 network calls a picture and change with the teacher's weights alone. The file
names the weights it was made from, and is refused beside any others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

import flowsteer.emoji
from flowsteer.emoji.prompts import EvalPrompt, load_prompts
from flowsteer.evaluation.study import Variant, prepare, sample
from flowsteer.loading import TEACHER_STEPS, pipeline_info

REFERENCES = Path(flowsteer.emoji.__file__).parent / "results" / "references.safetensors"
NUM_PROMPTS = 24
REMAKE = "python -m flowsteer.showcase references"


@dataclass(frozen=True, eq=False)
class References:
    """Prompts with their seeds, and the teacher's final latents from these noises."""

    prompts: Sequence[EvalPrompt]
    latents: Tensor  # (n, 16, 16, 16), float32, rounded to float16 in the file


def write_references(pipe: Any, path: Path = REFERENCES, num_prompts: int = NUM_PROMPTS) -> Path:
    """Sample the teacher on the first dev prompts and keep its final latents as float16.

    Raises:
        ValueError: if the number of prompts is out of range.
    """
    prompts = load_prompts("dev", num_prompts)
    scale = pipeline_info(pipe).guidance_scale
    latents = sample(pipe, prepare(pipe, prompts), Variant("teacher", TEACHER_STEPS, scale))
    metadata = {"transformer": transformer_checksum(pipe), "guidance_scale": f"{scale:g}"}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"latents": latents.half().contiguous()}, path, metadata)
    path.chmod(0o644)  # safetensors writes for the owner alone
    return path


def load_references(pipe: Any, path: Path = REFERENCES) -> References:
    """The references of a teacher's pipeline.

    Raises:
        ValueError: if there is no file, or it was made with other weights or another guidance.
    """
    if not path.is_file():
        raise ValueError(f"{path} is missing; make it: {REMAKE}")
    with safe_open(path, "pt") as file:
        metadata, latents = file.metadata() or {}, file.get_tensor("latents").float()
    found = {
        "transformer": transformer_checksum(pipe),
        "guidance_scale": f"{pipeline_info(pipe).guidance_scale:g}",
    }
    for name, value in found.items():
        if metadata.get(name) != value:
            raise ValueError(
                f"{path} is stale: made with {name} {str(metadata.get(name))[:12]}, and this"
                f" teacher has {value[:12]}; make it again: {REMAKE}"
            )
    return References(load_prompts("dev", len(latents)), latents)


def transformer_checksum(pipe: Any) -> str:
    """SHA-256 of a pipeline's transformer: its weights by name, as float32."""
    digest = hashlib.sha256()
    for name, tensor in sorted(pipe.transformer.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
    return digest.hexdigest()
