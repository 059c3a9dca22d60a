"""How the detector is trained and measured: true scenes, drawn on the fly, and nothing else."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor

from flowsteer.emoji.art import load_art
from flowsteer.emoji.art_sources import STYLES
from flowsteer.emoji.concepts import load_concepts
from flowsteer.emoji.detector import (
    Detection,
    Detector,
    DetectorConfig,
    intersection_over_union,
    load_detector,
    save_detector,
)
from flowsteer.emoji.detector_loss import Truth, degrade, detector_loss
from flowsteer.emoji.evaluation import EmojiEvalReport, judge, summarize
from flowsteer.emoji.prompts import TASKS, draw_prompts, true_scene_for
from flowsteer.emoji.render import Renderer, SceneTensors, pack_scenes
from flowsteer.emoji.scenes import Scene, World, draw_scene
from flowsteer.files import write_text
from flowsteer.training import StepReport, TrainingConfig, train
from flowsteer.training.data import NumberedBatches, seeded_generator
from flowsteer.training.machine import check_compiler
from flowsteer.training.results import Result, ResultFolder
from flowsteer.training.run_settings import RunSettings

STATISTICS_BATCHES = 50
EVALUATION_SCENES = 1200
DETECTOR = ResultFolder("detector", "config.json", ("model.safetensors",))
EVALUATION_SEED = 2**31  # training seeds are smaller, so no scene is in both


def detector_config(output_dir: str, **changes: object) -> TrainingConfig:
    """The settings the bundled detector was trained with, but for the changes given."""
    settings: dict[str, object] = {
        "train_batch_size": 512,
        "learning_rate": 2e-3,
        "lr_warmup_steps": 200,
        "adam_weight_decay": 0.02,
        "max_grad_norm": 5.0,
        "mixed_precision": "bf16",
        "checkpointing_steps": 2000,
    }
    return TrainingConfig(output_dir=output_dir, **{**settings, **changes})  # type: ignore[arg-type]


@dataclass(frozen=True)
class DetectorScenes:
    """Makes batch number n of scenes from the whole world, held-out pairs too.

    The detector has to know what the model was never shown, or it could not judge it.
    """

    batch_size: int
    seed: int
    num_concepts: int

    def __call__(self, index: int) -> SceneTensors:
        """Packed scenes."""
        rng = random.Random(f"detector/{self.seed}/{index}")
        world = World(self.num_concepts)
        return pack_scenes([draw_scene(rng, world) for _ in range(self.batch_size)])


def train_detector(
    config: TrainingConfig,
    start: Detector | None = None,
    widths: tuple[int, int, int] | None = None,
    num_concepts: int | None = None,
    report_every: int = 10,
) -> Iterator[StepReport]:
    """Train a detector on degraded pictures of scenes and save it as `config.output_dir/detector`.

    The averaged weights need averages of the batch statistics to match, so these are taken anew
    at the end, over pictures that were not trained on.

    Args:
        config: of the run, as from `detector_config`.
        start: a detector to go on from, instead of a fresh one.
        widths: of a fresh one, as `DetectorConfig.widths`.
        num_concepts: draw scenes from the first so many concepts only; from all by default.
        report_every: steps between reports.
    """
    accelerator = Accelerator(mixed_precision=config.mixed_precision)
    check_compiler(config.compile, accelerator.device)
    device = accelerator.device
    torch.manual_seed(config.seed)
    detector = start or _fresh(widths)
    detector.to(device).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    render = Renderer(load_art(), device)
    make = DetectorScenes(
        config.train_batch_size, config.seed, num_concepts or len(detector.config.concepts)
    )
    torch.backends.cudnn.benchmark = device.type == "cuda"  # shapes never change
    if config.compile:
        detector.compile(dynamic=False)

    losses = _losses(detector, render, make, config, accelerator)

    def write(folder: Path, steps: int) -> None:
        settle_statistics(detector, render, make)
        save_detector(detector, folder)

    settings = RunSettings.of(config).adding({"detector": asdict(detector.config)})
    settings = settings.adding(path={"num_concepts": make.num_concepts})
    result = Result(DETECTOR, write)
    yield from train(
        detector, losses, config, accelerator, report_every, settings=settings, result=result
    )
    if accelerator.is_main_process:
        folder = Path(config.output_dir) / DETECTOR.name
        report = evaluate_detector(load_detector(folder, device), render, EVALUATION_SCENES)
        write_text(folder.parent / "detector.json", json.dumps(report.to_dict(), indent=1))


def _losses(
    detector: Detector,
    render: Renderer,
    make: DetectorScenes,
    config: TrainingConfig,
    accelerator: Accelerator,
) -> Callable[[int, int], Iterator[Tensor]]:
    rank, processes = accelerator.process_index, accelerator.num_processes
    batches = NumberedBatches(make, config.dataloader_num_workers, processes)

    def losses(step: int, micro_step: int) -> Iterator[Tensor]:
        index = (step * config.gradient_accumulation_steps + micro_step) * processes + rank
        scenes = batches(index).to(accelerator.device)
        generator = seeded_generator(accelerator.device, config.seed, index)
        pictures = _channels_last(degrade(render(scenes), generator))
        with accelerator.autocast():
            loss = detector_loss(detector, pictures, truth_of(scenes)).total
        yield loss  # outside autocast, in which backward passes have no place

    return losses


def truth_of(scenes: SceneTensors) -> Truth:
    """Where and what the objects of packed scenes are."""
    concept, style = scenes.sprite.unbind(-1)
    x, y, size, _ = scenes.place.unbind(-1)
    return Truth(concept.clamp(min=0), style.clamp(min=0), x, y, size, concept >= 0)


@torch.no_grad()
def settle_statistics(detector: Detector, render: Renderer, make: DetectorScenes) -> None:
    """Set every batch norm's statistics to their mean over new batches, for the weights as is."""
    device = detector.concept_weight.device
    norms = [m for m in detector.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over the batches
    detector.train()
    for index in range(STATISTICS_BATCHES):
        number = 2**40 + index  # far from what training steps get to
        generator = seeded_generator(device, make.seed, number)
        # past __call__, which may be compiled for training
        detector.forward(_channels_last(degrade(render(make(number).to(device)), generator)))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    detector.eval()


@dataclass(frozen=True)
class DetectorReport:
    """How a detector does on true scenes, where every prompt is right by construction.

    emoji_eval is the accuracy of the judge; the others are shares of the objects of freely drawn
    scenes: found at all, and of those found, named right; extra is found objects a scene that
    are none.
    """

    emoji_eval: EmojiEvalReport
    found: float
    concept: float
    style: float
    extra: float

    def to_dict(self) -> dict[str, object]:
        """As JSON can hold it."""
        return {**asdict(self), "emoji_eval": self.emoji_eval.to_dict()}


def evaluate_detector(
    detector: Detector,
    render: Renderer | None = None,
    num_scenes: int = EVALUATION_SCENES,
    seed: int = EVALUATION_SEED,
    clean: bool = True,
) -> DetectorReport:
    """Measure a detector on `num_scenes` true scenes of prompts and as many freely drawn ones.

    Args:
        detector: on the device to measure on.
        render: on the same device; made if not given, which takes seconds.
        num_scenes: split evenly over the six tasks.
        seed: of prompts and scenes.
        clean: False degrades the pictures as in training.

    Raises:
        ValueError: if num_scenes is below 12.
    """
    if num_scenes < 12:
        raise ValueError(f"num_scenes is {num_scenes}; give at least 12, two a task")
    rng = random.Random(f"detector evaluation/{seed}")
    world = World(len(load_concepts()))
    render = render or Renderer(load_art(), detector.concept_weight.device)
    prompts = draw_prompts(num_scenes // len(TASKS), rng)
    scenes = [true_scene_for(p, seed + i, world) for i, p in enumerate(prompts)]
    correct = judge(prompts, render_scenes(render, scenes, seed, clean), detector)
    free = [draw_scene(rng, world) for _ in range(num_scenes)]
    found = detector.detect(render_scenes(render, free, seed + 1, clean))
    hits = [(o, d) for s, ds in zip(free, found, strict=True) for o, d in _matches(s, ds)]
    objects = sum(len(scene.objects) for scene in free)
    return DetectorReport(
        emoji_eval=summarize(prompts, correct),
        found=len(hits) / objects,
        concept=sum(o.concept == d.concept for o, d in hits) / max(len(hits), 1),
        style=sum(o.style == d.style for o, d in hits) / max(len(hits), 1),
        extra=(sum(map(len, found)) - len(hits)) / num_scenes,
    )


def _matches(scene: Scene, detections: list[Detection]) -> Iterator[tuple[Detection, Detection]]:
    left = list(detections)
    for thing in scene.objects:
        truth = Detection(thing.concept, thing.style, thing.x, thing.y, thing.size, 1.0)
        best = max(left, key=lambda d: intersection_over_union(truth, d), default=None)
        if best is not None and intersection_over_union(truth, best) >= 0.5:
            left.remove(best)
            yield truth, best


def render_scenes(
    render: Renderer, scenes: list[Scene], seed: int = 0, clean: bool = True
) -> Tensor:
    """Pictures (n, 3, 128, 128) of scenes, degraded from a seed if not clean."""
    generator, pictures = None, []
    for low in range(0, len(scenes), 128):
        batch = render(pack_scenes(scenes[low : low + 128]))
        generator = generator or seeded_generator(batch.device, seed)
        pictures.append(batch if clean else degrade(batch, generator))
    return torch.cat(pictures)


def _fresh(widths: tuple[int, int, int] | None) -> Detector:
    names = tuple(concept.name for concept in load_concepts())
    config = DetectorConfig(names, STYLES)
    return Detector(config if widths is None else DetectorConfig(names, STYLES, widths))


def _channels_last(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last)
