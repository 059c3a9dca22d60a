"""What the cells share: teacher, judge, prompts, and the teacher's pictures to be matched."""

from __future__ import annotations

import copy
import sys
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from flowsteer.emoji.art import load_art
from flowsteer.emoji.detector import Detector, load_detector
from flowsteer.emoji.pipeline import write_tiny_teacher
from flowsteer.emoji.prompts import load_prompts
from flowsteer.emoji.render import Renderer, SceneTensors
from flowsteer.evaluation.study import (
    Reference,
    Result,
    Setting,
    Variant,
    pictures,
    prepare,
    sample,
    score,
    take_reference,
)
from flowsteer.loading import TEACHER_STEPS, load_pipeline, pipeline_info, with_student
from flowsteer.reproduce.presets import Preset
from flowsteer.training.sources import vae_encoder


@dataclass(frozen=True, eq=False)
class Ground:
    """Prompts and noises of a split, and the teacher's pictures from them."""

    setting: Setting
    reference: Reference
    teacher: Result  # the reference, judged


@dataclass(frozen=True)
class Machine:
    """How to run on this machine; changes no result beyond rounding."""

    device: str | None = None
    """None takes a GPU if there is one."""
    compile: bool = False
    """Compile the transformers of training runs."""
    num_workers: int = 0
    """Processes that draw scenes."""


class Workbench:
    """Loads each thing when a cell first asks for it.

    Args:
        preset: sizes, and which teacher.
        machine: device and processes.
    """

    def __init__(self, preset: Preset, machine: Machine):
        self.preset, self.machine = preset, machine

    @cached_property
    def pipe(self) -> Any:
        """The teacher's pipeline."""
        if self.preset.model != "tiny":
            return load_pipeline(self.preset.model, device=self.machine.device)
        with tempfile.TemporaryDirectory() as folder:
            write_tiny_teacher(Path(folder))
            return load_pipeline(folder, device=self.machine.device)

    @cached_property
    def detector(self) -> Detector:
        """The judge."""
        return load_detector(device=self.pipe.transformer.device)

    @cached_property
    def renderer(self) -> Renderer:
        """Draws scenes; made once, since it holds every sprite in four sizes."""
        return Renderer(load_art(), self.pipe.vae.device)

    def encode_scenes(self, scenes: SceneTensors) -> Tensor:
        """Scenes, drawn and encoded: normalised latents (b, 16, 16, 16), float32."""
        return vae_encoder(self.pipe.vae)(self.renderer(scenes))

    @cached_property
    def teacher(self) -> Variant:
        """How the reference is sampled: the teacher's 28 guided steps."""
        scale = pipeline_info(self.pipe).guidance_scale
        return Variant("teacher, 28 steps", TEACHER_STEPS, scale)

    @cached_property
    def test(self) -> Ground:
        """Of the figures to report."""
        return self._ground("test", self.preset.num_prompts)

    @cached_property
    def dev(self) -> Ground:
        """Of the choices to make."""
        return self._ground("dev", self.preset.dev_prompts)

    def ground(self, split: str) -> Ground:
        """`test` or `dev`."""
        return self.dev if split == "dev" else self.test

    def evaluate(self, pipe: Any, variant: Variant, ground: Ground) -> tuple[Result, Tensor]:
        """A variant's score and its final latents (n, 16, 16, 16)."""
        latents = sample(pipe, ground.setting, variant)
        setting, reference = ground.setting, ground.reference
        return score(pipe, variant, latents, setting, self.detector, reference), latents

    def fresh_pipe(self) -> Any:
        """The teacher's pipeline with a transformer of its own, to be changed."""
        twin = with_student(self.pipe, None)
        twin.transformer = copy.deepcopy(twin.transformer)
        return twin

    def strip(self, latents: Tensor) -> Image.Image:
        """The pictures of the first prompts, side by side."""
        drawn = pictures(self.pipe, latents[: self.preset.sheet])
        row = torch.cat(list(drawn), dim=2)  # (3, 128, n 128)
        return Image.fromarray(((row + 1) * 127.5).round().byte().permute(1, 2, 0).numpy())

    def _ground(self, split: str, count: int) -> Ground:
        setting = prepare(self.pipe, load_prompts(split, count))
        reference = take_reference(self.pipe, setting, self.teacher, self.detector)
        teacher = score(
            self.pipe, self.teacher, reference.latents, setting, self.detector, reference
        )
        return Ground(setting, reference, teacher)


def start_peak_memory() -> None:
    """Forget the peak so far, where that is possible (a GPU)."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_memory() -> int | None:
    """Bytes: the GPU's peak since `start_peak_memory`, else the process's since it started."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
