"""What the last step of a few is worth in the published flow-matching families.

The settings are those of each family's published scheduler, the calls those of its pipeline in
diffusers; the grids are computed by the installed schedulers. Sizes are the pipelines' defaults.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)
from torch import Tensor

from flowsteer.schedulers import RectifiedFlowMatchEulerDiscreteScheduler
from flowsteer.validation import check_num_inference_steps

Asked = dict[str, Any]
"""What a pipeline passes to `set_timesteps`, the device left out."""


def asks_for_steps(steps: int) -> Asked:
    """Only N: the scheduler chooses the grid."""
    return {"num_inference_steps": steps}


def asks_for_even_sigmas(steps: int) -> Asked:
    """Its own N times, evenly spaced, without the terminal 0: what the rectified grid takes."""
    return {"sigmas": [1 - k / steps for k in range(steps)]}


def asks_for_whole_timesteps(steps: int) -> Asked:
    """CogView4: whole timesteps, the last one 1, and sigmas made of them."""
    told = torch.linspace(1000, 1, steps, dtype=torch.float64).long().float()
    return {"sigmas": told / 1000, "timesteps": told}


def asks_for_even_timesteps(steps: int) -> Asked:
    """GLM-Image: the same without the last of N + 1."""
    told = torch.linspace(1000, 1, steps + 1, dtype=torch.float64)[:-1].long().float()
    return {"sigmas": told / 1000, "timesteps": told}


@dataclass(frozen=True)
class Family:
    """Models that share a scheduler's settings and a way to ask it for times.

    Attributes:
        models: their names.
        pipelines: their text-to-picture or text-to-video classes in diffusers.
        asks: what the pipelines pass for N steps.
        source: where the settings are written.
        config: of the published scheduler, where it differs from the defaults.
        mu: the dynamic shift at the pipeline's default size; None for a fixed shift.
    """

    models: str
    pipelines: tuple[str, ...]
    asks: Callable[[int], Asked]
    source: str
    config: Mapping[str, Any] = field(default_factory=dict)
    mu: float | None = None

    def grid(self, scheduler_class: type, steps: int) -> Tensor:
        """The times of N steps as this scheduler gives them, shape (N + 1,)."""
        scheduler = scheduler_class(**self.config)
        with np.errstate(all="ignore"):  # one step with `shift_terminal` is 0 / 0 in stock
            scheduler.set_timesteps(**self.asks(steps), mu=self.mu)
        return scheduler.sigmas

    @property
    def setting(self) -> str:
        """The shift in words."""
        if self.mu is None:
            words = f"shift {self.config.get('shift', 1.0):g}"
        else:
            words = f"mu {self.mu:.2f}"
        terminal = self.config.get("shift_terminal")
        return f"{words}, to {terminal:g}" if terminal else words


_SCRIPTS = "huggingface/diffusers, scripts/convert_{}_to_diffusers.py"
_DYNAMIC = {"use_dynamic_shifting": True}
_COGVIEW4 = {**_DYNAMIC, "base_shift": 0.25, "max_shift": 0.75, "time_shift_type": "linear"}

FAMILIES = (
    Family(
        "Stable Diffusion 3, HiDream, PRX",
        ("StableDiffusion3Pipeline", "HiDreamImagePipeline", "PRXPipeline"),
        asks_for_steps,
        "stabilityai/stable-diffusion-3-medium-diffusers, HiDream-ai/HiDream-I1-Full and "
        + _SCRIPTS.format("prx"),
        {"shift": 3.0},
    ),
    Family(
        "Wan, SANA, Kandinsky 5 by Euler",
        ("WanPipeline", "SanaPipeline", "Kandinsky5T2IPipeline"),
        asks_for_steps,
        _SCRIPTS.format("wan") + " and sana, whose published solvers (UniPC, DPM-Solver) make "
        "grids of their own; Kandinsky 5 at the same shift, which differs between its models",
        {"shift": 3.0},
    ),
    Family(
        "AuraFlow",
        ("AuraFlowPipeline",),
        asks_for_steps,
        "fal/AuraFlow",
        {"shift": 1.73},
    ),
    Family(
        "Lumina-Next",
        ("LuminaPipeline",),
        asks_for_steps,
        _SCRIPTS.format("lumina"),
    ),
    Family(
        "CogView4",
        ("CogView4Pipeline",),
        asks_for_whole_timesteps,
        _SCRIPTS.format("cogview4"),
        _COGVIEW4,
        mu=3.25,  # at 1024 px, 4096 tokens
    ),
    Family(
        "GLM-Image",
        ("GlmImagePipeline",),
        asks_for_even_timesteps,
        "zai-org/GLM-Image, with the settings of CogView4",
        _COGVIEW4,
        mu=3.25,  # at 1024 px, 4096 tokens
    ),
    Family(
        "Qwen-Image",
        ("QwenImagePipeline",),
        asks_for_even_sigmas,
        "Qwen/Qwen-Image",
        {**_DYNAMIC, "max_shift": 0.9, "max_image_seq_len": 8192, "shift_terminal": 0.02},
        mu=0.6935,  # at 1024 px
    ),
    Family(
        "LTX-Video",
        ("LTXPipeline",),
        asks_for_even_sigmas,
        _SCRIPTS.format("ltx"),
        {
            **_DYNAMIC,
            "base_shift": 0.95,
            "max_shift": 2.05,
            "base_image_seq_len": 1024,
            "shift_terminal": 0.1,
        },
        mu=3.2302,  # 704 x 512, 161 frames: 7392 tokens
    ),  # fmt: skip
    Family(
        "FLUX.1-dev",
        ("FluxPipeline",),
        asks_for_even_sigmas,
        "black-forest-labs/FLUX.1-dev",
        {**_DYNAMIC, "shift": 3.0},
        mu=1.15,  # at 1024 px
    ),
    Family(
        "Z-Image-Turbo",
        ("ZImagePipeline",),
        asks_for_even_sigmas,
        "Tongyi-MAI/Z-Image-Turbo",
        {"shift": 3.0},
    ),
    Family(
        "HunyuanVideo",
        ("HunyuanVideoPipeline",),
        asks_for_even_sigmas,
        _SCRIPTS.format("hunyuan_video"),
        {"shift": 7.0},
    ),
)
"""Where the scheduler chooses the grid first, then where the pipeline does."""


def last_steps(family: Family, steps: int) -> tuple[float, float]:
    """The share of the path that the last call covers, on the stock and on the rectified grid."""
    stock = family.grid(FlowMatchEulerDiscreteScheduler, steps)
    rectified = family.grid(RectifiedFlowMatchEulerDiscreteScheduler, steps)
    return stock[-2].item(), rectified[-2].item()


def families_table(steps: int = 4) -> str:
    """A Markdown table of `last_steps` for every family.

    Raises:
        ValueError: if `steps` is no number from 1 to 1,000.
    """
    steps = check_num_inference_steps(steps)
    rows = [("family", "it passes", "setting", "stock", "rectified")]
    for family in FAMILIES:
        stock, rectified = last_steps(family, steps)
        passed = " and ".join(name for name in family.asks(steps) if name != "num_inference_steps")
        both = "the same" if stock == rectified else f"{rectified:.4f}"
        rows.append((family.models, passed or "N", family.setting, f"{stock:.4f}", both))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [_line(row, widths) for row in rows]
    rule = _line(tuple("-" * width for width in widths), widths)
    return "\n".join([lines[0], rule, *lines[1:]])


def families_report(steps: int = 4) -> str:
    """`families_table`, with what it says."""
    return "\n".join(
        [
            f"What the last of {steps} calls covers of the path from noise (1) to data (0)",
            "",
            families_table(steps),
            "",
            "N: the pipeline leaves the grid to its scheduler, and the stock one wastes the last",
            "call. Where it passes times of its own, both schedulers do the same.",
            f"Computed with the schedulers of diffusers {diffusers.__version__}.",
        ]
    )


def _line(cells: tuple[str, ...], widths: list[int]) -> str:
    return "| " + " | ".join(c.ljust(width) for c, width in zip(cells, widths, strict=True)) + " |"
