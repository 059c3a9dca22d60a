"""What one step asks of the student, and of its critic."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor

from flowsteer.distill.adversarial import EdgeStates, critic_loss, edge_states, student_losses
from flowsteer.distill.critic import TrajectoryCritic, locate_edges
from flowsteer.distill.objectives import window_velocities
from flowsteer.distill.starts import Batch, Segment, Solve, Start, on_policy_starts
from flowsteer.flow import TimeWindows, VelocityField, guided
from flowsteer.models.sd3 import TextCondition
from flowsteer.training.data import seeded_generator
from flowsteer.training.distillation_config import DistillationConfig
from flowsteer.training.draws import Draws, Samples
from flowsteer.training.sources import Encode

Embed = Callable[[Sequence[str]], TextCondition]


@dataclass(eq=False)
class DistillationObjective:
    """The losses of a run: one per window, then the critic's opinion, then the critic's own.

    Args:
        config: of the run.
        accelerator: device and processes.
        student: the field that is taught; computes in its own precision.
        teacher: the field that teaches, unguided.
        empty: the empty prompt's condition.
        windows: of the student.
        shift: of the teacher's time grid.
        guidance_range: lowest and highest scale of the teacher.
        batches: number of a batch -> its samples.
        embed: prompts -> condition.
        encode: pictures -> latents, for methods that need data.
        critic: None without adversarial training.
    """

    config: DistillationConfig
    accelerator: Accelerator
    student: VelocityField
    teacher: VelocityField
    empty: TextCondition
    windows: TimeWindows
    shift: float
    guidance_range: tuple[float, float]
    batches: Callable[[int], Samples]
    embed: Embed
    encode: Encode | None = None
    critic: TrajectoryCritic | None = None
    _sums: dict[str, Tensor] = field(default_factory=dict)
    _counts: dict[str, Tensor] = field(default_factory=dict)
    _seen: tuple[EdgeStates, Any, int] | None = None

    def __post_init__(self) -> None:
        config = self.config
        self._solve = Solve(config.teacher_steps, self.shift, config.solver)
        self._start: Start = config.teaching.start
        if config.share_on_policy > 0:
            self._start = on_policy_starts(self.student)

    def student_losses(self, step: int, micro_step: int) -> Iterator[Tensor]:
        """The student's: mean squared error in every window, then what the critic asks."""
        index = self._index(step, micro_step)
        batch, scale = self._batch(self.batches(index))
        teacher = guided(self.teacher, scale, self.empty)
        segments: list[Segment] = []
        crossings = self._start(teacher, batch, self.windows, self._solve)
        for segment, depths in zip(crossings, batch.depths, strict=True):
            v, target = window_velocities(self.student, segment, depths, batch.cond)
            self._note("cosine", F.cosine_similarity(v.flatten(1), target.flatten(1)).mean())
            # one window's graph at a time: this one is gone before the next window is solved
            yield F.mse_loss(v, target) / self.windows.num_windows
            segments.append(segment)
        if self.critic is None:
            return
        own = self.config.critic_states == "rollout"
        states = edge_states(self.student, segments, batch, own_rollout=own)
        with self.accelerator.autocast():
            adversarial, matching = student_losses(
                self.critic, states, batch.cond, self.config.adversarial_loss
            )
        self._note("adversarial_loss", adversarial)
        self._note("feature_matching_loss", matching)
        yield self.config.lambda_adv * adversarial + self.config.lambda_fm * matching
        seen = EdgeStates(states.real, states.fake.detach(), states.t)
        self._seen = seen, batch.cond, index

    def critic_losses(self, step: int, micro_step: int) -> Iterator[Tensor]:
        """The critic's, on the states that the student's losses of this micro-step made."""
        if self.critic is None or self._seen is None:
            return
        states, cond, index = self._seen
        self._seen = None
        noise = None
        if self.config.adversarial_loss == "wasserstein":  # its approximate R1 perturbs real states
            generator = seeded_generator(states.real.device, self.config.seed, index)
            noise = torch.randn(states.real.shape, generator=generator, device=states.real.device)
        with self.accelerator.autocast():
            loss, health = critic_loss(
                self.critic, states, cond, self.config.adversarial_loss, noise
            )
        for name, value in health._asdict().items():
            self._note(f"critic_{name}", value)
        # at noisy edges both states are nearly the same; a mean over all of them hides the rest
        for k in range(self.windows.num_windows):
            t_lo = self.windows.bounds(k)[1]
            for name in ("accuracy", "ranked"):
                self._note(f"critic_{name}_at_{t_lo:g}", getattr(health, name), states.t == t_lo)
        yield loss

    def metrics(self) -> dict[str, float]:
        """Means of what was noted since this was last read."""
        counts = {name: float(count) for name, count in self._counts.items()}
        means = {name: float(self._sums[name]) / n for name, n in counts.items() if n > 0}
        self._sums.clear()
        self._counts.clear()
        return means

    def _index(self, step: int, micro_step: int) -> int:
        """Number of this process's batch."""
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        return (step * self.config.gradient_accumulation_steps + micro_step) * world + rank

    def _batch(self, samples: Samples) -> tuple[Batch, Tensor]:
        """A batch with its randomness on the device, and the teacher's scales (b,)."""
        config, x_0 = self.config, None
        device = self.accelerator.device
        draws: Draws = samples.draws.to(device)
        if config.teaching.needs_data:
            if self.encode is None or samples.drawn.pictures is None:
                raise ValueError(
                    f"method = {config.method!r} learns from pictures and the source has none; give"
                    " --train_data_dir, or use ota"
                )
            x_0 = self.encode(samples.drawn.pictures).to(device)
        edge = locate_edges(samples.draws.edge, self.windows.num_windows)
        batch = Batch(
            eps=draws.eps,
            depths=draws.depths * (draws.at_hi >= config.share_at_hi),
            cond=to_device(self.embed(samples.drawn.texts), device),
            x_0=x_0,
            on_policy=draws.on_policy < config.share_on_policy,
            edge=edge.to(device, non_blocking=True),
        )
        low, high = self.guidance_range
        return batch, low + (high - low) * draws.guidance

    def _note(self, name: str, value: Tensor, where: Tensor | None = None) -> None:
        """Add to a mean, of those values that `where` marks, without waiting for the device."""
        value = value.detach().float()
        where = torch.ones_like(value) if where is None else where
        for sums, new in ((self._sums, (value * where).sum()), (self._counts, where.sum())):
            sums[name] = sums[name] + new if name in sums else new


def to_device(cond: TextCondition, device: torch.device) -> TextCondition:
    """A condition moved to a device."""
    return type(cond)(*(leaf.to(device) for leaf in cond))
