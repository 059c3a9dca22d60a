"""What a way of sampling is worth: obedience, distance to the teacher, Frechet distance.

Everything is measured on one set of prompts and noises, so that any two rows compare pairwise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from flowsteer.emoji.detector import Detector
from flowsteer.emoji.evaluation import EmojiEvalReport, judge, summarize
from flowsteer.emoji.pipeline import LATENT_SHAPE
from flowsteer.emoji.prompts import EvalPrompt
from flowsteer.emoji.words import normalize_prompt
from flowsteer.families import check_drawn
from flowsteer.flow import GRIDS, guided, iterate
from flowsteer.generation import initial_noise
from flowsteer.measure.bootstrap import Interval, mean_interval
from flowsteer.measure.distances import relative_l2
from flowsteer.measure.frechet import frechet_distance
from flowsteer.models.autoencoder import decode_latents
from flowsteer.models.schedule import check_schedule
from flowsteer.models.sd3 import SD3Field, TextCondition, encode_prompts

ENDPOINT_STEPS = 100  # a grid fine enough to stand for the exact end of a path


@dataclass(frozen=True)
class Variant:
    """A way of sampling one network."""

    label: str
    num_inference_steps: int
    guidance_scale: float = 1.0
    scheduler: str = "rectified"

    @property
    def nfe(self) -> int:
        """Network calls per picture."""
        return self.num_inference_steps * (1 if self.guidance_scale == 1 else 2)

    def grid(self, shift: float) -> Tensor:
        """The times it visits (N + 1,)."""
        return GRIDS[self.scheduler](self.num_inference_steps, shift)


@dataclass(frozen=True, eq=False)
class Setting:
    """Prompts, encoded, and their noises: common ground of all variants."""

    prompts: Sequence[EvalPrompt]
    cond: TextCondition
    empty: TextCondition
    noise: Tensor  # (n, 16, 16, 16), on the CPU

    def first(self, count: int) -> Setting:
        """The first `count` prompts alone."""
        cond = type(self.cond)(*(leaf[:count] for leaf in self.cond))
        return Setting(self.prompts[:count], cond, self.empty, self.noise[:count])


@dataclass(frozen=True, eq=False)
class Result:
    """What one variant scores."""

    variant: Variant
    report: EmojiEvalReport
    correct: list[bool]  # one a prompt
    distances: list[float]  # relative L2 of final latents to the reference's
    frechet: float | None  # of detector features to the reference's
    endpoint_distance: float | None = None  # relative L2 to the same field's 100-step endpoint

    @property
    def distance(self) -> Interval:
        """Mean distance with its 95% interval."""
        return mean_interval(self.distances)

    def to_json(self) -> dict[str, Any]:
        """Figures, intervals and the answers prompt by prompt."""
        distance = self.distance
        return {
            "label": self.variant.label,
            "num_inference_steps": self.variant.num_inference_steps,
            "guidance_scale": self.variant.guidance_scale,
            "scheduler": self.variant.scheduler,
            "nfe": self.variant.nfe,
            "emoji_eval": self.report.to_dict(),
            "distance": {"mean": distance.mean, "low": distance.low, "high": distance.high},
            "frechet": self.frechet,
            "endpoint_distance": self.endpoint_distance,
            "correct": "".join("01"[right] for right in self.correct),
            "distances": [round(value, 4) for value in self.distances],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any], prompts: Sequence[EvalPrompt]) -> Result:
        """Read what `to_json` wrote, cut to the first prompts if there are fewer of them."""
        correct = [answer == "1" for answer in value["correct"][: len(prompts)]]
        whole = len(prompts) == len(value["correct"])
        settings = ("label", "num_inference_steps", "guidance_scale", "scheduler")
        return cls(
            variant=Variant(*(value[name] for name in settings)),
            report=summarize(prompts, correct),
            correct=correct,
            distances=value["distances"][: len(prompts)],
            frechet=value["frechet"] if whole else None,  # depends on the number of pictures
            endpoint_distance=value["endpoint_distance"],
        )


def prepare(pipe: Any, prompts: Sequence[EvalPrompt], batch_size: int = 256) -> Setting:
    """Encode the prompts and draw the noise of each one's seed.

    Raises:
        ValueError: if the pipeline is of a family that cannot be drawn, or the model's times are
            others than the grids that variants are sampled on.
    """
    check_drawn(pipe)
    check_schedule(pipe.scheduler.config, str(getattr(pipe, "name_or_path", "")))
    texts = [normalize_prompt(prompt.text) for prompt in prompts]
    parts = [
        encode_prompts(pipe, texts[low : low + batch_size])
        for low in range(0, len(texts), batch_size)
    ]
    cond = type(parts[0])(*(torch.cat(leaves) for leaves in zip(*parts, strict=True)))
    seeds = [prompt.seed for prompt in prompts]
    noise = torch.stack([initial_noise(seed, LATENT_SHAPE) for seed in seeds])
    return Setting(prompts, cond, encode_prompts(pipe, [""]), noise)


def sample(pipe: Any, setting: Setting, variant: Variant, batch_size: int = 256) -> Tensor:
    """Final latents (n, 16, 16, 16) of a variant, on the CPU."""
    grid = variant.grid(pipe.scheduler.shift)
    return follow(pipe, setting, setting.noise, grid, variant.guidance_scale, batch_size)


@torch.no_grad()
def follow(
    pipe: Any,
    setting: Setting,
    x: Tensor,
    grid: Tensor,
    guidance_scale: float = 1.0,
    batch_size: int = 256,
) -> Tensor:
    """Where the network leads from states x at grid[0] to grid[-1], in Euler steps.

    Args:
        pipe: its transformer is asked.
        setting: prompts, in the order of the states.
        x: (n, 16, 16, 16).
        grid: decreasing times (m + 1,), all or part of a sampler's.
        guidance_scale: 1 means none.
        batch_size: states at a time.

    Returns:
        (n, 16, 16, 16), on the CPU.
    """
    field = guided(SD3Field(pipe.transformer), guidance_scale, setting.empty)
    ends = []
    for low in range(0, len(x), batch_size):
        state = x[low : low + batch_size].to(pipe.transformer.device)
        cond = type(setting.cond)(*(leaf[low : low + batch_size] for leaf in setting.cond))
        for moved in iterate(field, state, grid, cond):
            state = moved
        ends.append(state.cpu())
    return torch.cat(ends)


@torch.no_grad()
def pictures(pipe: Any, latents: Tensor, batch_size: int = 128) -> Tensor:
    """Decoded pictures (n, 3, 128, 128) in [-1, 1], on the CPU."""
    chunks = latents.split(batch_size)
    return torch.cat(
        [decode_latents(pipe.vae, chunk.to(pipe.vae.device)).cpu() for chunk in chunks]
    )


@dataclass(frozen=True, eq=False)
class Reference:
    """The teacher's pictures that all others are held against."""

    latents: Tensor  # (n, 16, 16, 16), from `sample`
    features: Tensor  # (n, d), the detector's


def take_reference(pipe: Any, setting: Setting, variant: Variant, detector: Detector) -> Reference:
    """Sample the pictures to be matched: the teacher's, in many guided steps."""
    latents = sample(pipe, setting, variant)
    return Reference(latents, detector.features(pictures(pipe, latents)))


def score(
    pipe: Any,
    variant: Variant,
    latents: Tensor,
    setting: Setting,
    detector: Detector,
    reference: Reference,
) -> Result:
    """Judge a variant's final latents (n, 16, 16, 16), in the order of the setting's prompts."""
    drawn = pictures(pipe, latents)
    correct = judge(setting.prompts, drawn, detector)
    return Result(
        variant=variant,
        report=summarize(setting.prompts, correct),
        correct=correct,
        distances=relative_l2(latents, reference.latents).tolist(),
        frechet=frechet_distance(detector.features(drawn), reference.features),
    )


def evaluate_variants(
    pipe: Any,
    variants: Sequence[Variant],
    setting: Setting,
    detector: Detector,
    reference: Reference,
    endpoint_prompts: int = 0,
) -> Iterator[Result]:
    """Sample and judge each variant of one network.

    Args:
        pipe: its transformer is sampled.
        variants: ways of sampling it.
        setting: prompts and noises.
        detector: the judge.
        reference: the teacher's pictures, from `take_reference`.
        endpoint_prompts: for this many prompts from the first, also sample each guidance scale in
            100 steps, and give the mean distance to that.

    Yields:
        One result a variant.
    """
    ends: dict[float, Tensor] = {}
    for variant in variants:
        latents = sample(pipe, setting, variant)
        result = score(pipe, variant, latents, setting, detector, reference)
        if endpoint_prompts:
            scale, some = variant.guidance_scale, setting.first(endpoint_prompts)
            if scale not in ends:
                ends[scale] = sample(pipe, some, Variant("end", ENDPOINT_STEPS, scale))
            distance = relative_l2(latents[:endpoint_prompts], ends[scale]).mean().item()
            result = replace(result, endpoint_distance=distance)
        yield result


def undistilled_variants(steps: int = 4) -> list[Variant]:
    """Every way to run the teacher in few steps: both schedulers, six guidance scales."""
    return [
        Variant(f"teacher, {scheduler}, guidance {scale:g}", steps, scale, scheduler)
        for scheduler in ("stock", "rectified")
        for scale in (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)
    ]
