"""How long a training iteration takes with each method, and how well it uses the machine."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch.utils.flop_counter import FlopCounterMode

from flowsteer.bench.report import BenchReport, Ratio, Timing, interleave
from flowsteer.distill.methods import METHODS
from flowsteer.noise import latent_shape
from flowsteer.training.distillation import build_objective
from flowsteer.training.distillation_config import DistillationConfig
from flowsteer.training.draws import Samples, draw_samples
from flowsteer.training.networks import Networks, build_networks, compile_networks
from flowsteer.training.objective import DistillationObjective
from flowsteer.training.player import Player
from flowsteer.training.sources import Drawn

WINDOWS_OF_MOST = 4
MATRIX_SIDE = {"cuda": 8192, "cpu": 1024}


@dataclass(eq=False)
class _Iteration:
    """One optimiser step of a method, on a batch that stays the same."""

    networks: Networks
    objective: DistillationObjective
    players: list[Player]

    def __call__(self) -> None:
        """Losses, gradients and updates of every network."""
        losses = [player.accumulate(0, 0) for player in self.players]
        for player in self.players:
            player.update(1.0)
        sum(losses).item()  # type: ignore[union-attr]  # wait for a GPU


def bench_train(
    pipe: Any, repeats: int = 5, batch_size: int = 2, substeps: int = 7, compile: bool = False
) -> BenchReport:
    """Every method's iteration: seconds per student sample, and share of the matrix peak.

    The same prompts, noise, LoRA rank, substeps and optimiser for all. Pictures are rendered and
    encoded ahead, so PeRFlow's data costs it nothing here.

    Args:
        pipe: the emoji teacher, from `load_pipeline`; it is left as it is.
        repeats: iterations of each.
        batch_size: prompts an iteration; each gives a student sample in every window.
        substeps: teacher steps a window; ReFlow's one window gets as many as the others' together.
        compile: the networks' blocks, as `--compile` does.

    Returns:
        The report. A student sample is one prompt in one window; a network call counts as matrix
        work by its multiplications, and the peak is that of one large product on the same device.
    """
    iterations = {name: _iteration(pipe, name, batch_size, substeps) for name in METHODS}
    flops = {name: _count_flops(task) for name, task in iterations.items()}
    if compile:
        for task in iterations.values():
            networks = compile_networks(task.networks)
            task.objective.teacher = networks.teacher
            task.objective.student = networks.student
    precision = torch.bfloat16 if pipe.device.type == "cuda" else torch.float32
    peak = matrix_peak(pipe.device, precision)
    timings, notes = [], []
    median = {}
    for timing in interleave(iterations, repeats):
        name = timing.name
        samples = batch_size * (METHODS[name].num_windows or WINDOWS_OF_MOST)
        median[name] = timing.median
        timings.append(Timing(name, tuple(seconds / samples for seconds in timing.seconds)))
        share = flops[name] / timing.median / peak
        notes.append(
            f"{name}: {samples / timing.median:.1f} student samples/s, {share:.0%} of peak"
        )
    ratios = (
        Ratio("OTA / PeRFlow", median["ota"] / median["perflow"], at_most=1.05),
        Ratio("with critic / without", median["flowsteer"] / median["ota"], at_most=2.0),
    )
    title = (
        f"Training on {device_name(pipe.device)}, per student sample: {substeps} guided teacher"
        f" steps a window, batch {batch_size}; matrix peak {peak / 1e12:.3g} TFLOP/s"
    )
    return BenchReport(title, tuple(timings), ratios, tuple(notes))


def _iteration(pipe: Any, method: str, batch_size: int, substeps: int) -> _Iteration:
    """A method's losses and optimisers, on networks of its own."""
    from flowsteer.loading import pipeline_info

    whole = METHODS[method].num_windows == 1
    on_gpu = pipe.device.type == "cuda"
    config = DistillationConfig(
        method=method,
        train_batch_size=batch_size,
        substeps=substeps * WINDOWS_OF_MOST if whole else substeps,
        mixed_precision="bf16" if on_gpu else "no",
    )
    accelerator = Accelerator(mixed_precision=config.mixed_precision, cpu=not on_gpu)
    own = copy.copy(pipe)
    own.transformer = copy.deepcopy(pipe.transformer)
    networks = build_networks(own, config, accelerator)
    samples = _samples(pipe, config)
    scale = pipeline_info(pipe).guidance_scale
    objective = build_objective(
        own, lambda numbers: samples.drawn, config, scale, networks, accelerator, _as_they_are, None
    )
    objective.batches = lambda index: samples
    rate = config.learning_rate
    players = [Player(own.transformer, objective.student_losses, rate, config, accelerator)]
    if networks.critic is not None:
        players.append(
            Player(networks.critic, objective.critic_losses, rate, config, accelerator, "critic_")
        )
    return _Iteration(networks, objective, players)


def _as_they_are(latents: Any) -> Any:
    return latents


def _samples(pipe: Any, config: DistillationConfig) -> Samples:
    """Encoded scenes with their captions, and the draws of the first samples."""
    from flowsteer.emoji.batches import SceneSource, scene_encoder

    numbers = range(config.train_batch_size)
    drawn = SceneSource(config.seed)(numbers)
    latents = scene_encoder(pipe.vae)(drawn.pictures)
    draws = draw_samples(config.seed, numbers, latent_shape(pipe), config.windows)
    return Samples(Drawn(drawn.texts, latents), draws)


def _count_flops(task: Callable[[], None]) -> int:
    """Multiplications and additions of one iteration."""
    with FlopCounterMode(display=False) as counter:
        task()
    return counter.get_total_flops()


def matrix_peak(device: torch.device, precision: torch.dtype) -> float:
    """Operations a second in one large matrix product, the best of several."""
    side = MATRIX_SIDE.get(device.type, 1024)
    a, b = torch.randn(2, side, side, device=device, dtype=precision)
    best = float("inf")
    for _ in range(32):  # some without other load on the machine
        start = time.perf_counter()
        product = a @ b
        product[0, 0].item()  # wait for a GPU
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best


def device_name(device: torch.device) -> str:
    """A GPU's name, or the processor's threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{torch.get_num_threads()} CPU threads"
