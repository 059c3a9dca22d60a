"""Distillation in the plane: every method on an exact teacher, in seconds on a laptop.

The teacher is the velocity field of a Gaussian mixture in closed form, guided towards one of its
components, the "prompt". The student is a small network. What the methods do is the very code
that distils SD3; only the networks and the loop around them are small.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from flowsteer.distill import (
    Batch,
    Method,
    Solve,
    find_method,
    on_policy_starts,
    window_velocity_loss,
)
from flowsteer.distill.adversarial import critic_loss, edge_states, student_losses
from flowsteer.distill.critic import TrajectoryCritic, locate_edges
from flowsteer.flow import (
    GaussianMixture,
    TimeWindows,
    VelocityField,
    guided,
    heun_step,
    interpolate,
    rectified_grid,
    rollout,
)
from flowsteer.models.toy import ToyBackbone, ToyField

EXACT_STEPS = 100
"""Heun's steps that stand for the teacher's exact path."""
REACH = 4.0
"""Half the side of the square of the plane that figures show."""
TEACHER_STEPS = 40
"""Second-order steps of the teacher's rollout in training, shared out among the windows."""


def ring(count: int = 6, radius: float = 2.0, std: float = 0.3) -> GaussianMixture:
    """Equal Gaussians evenly around a circle: the notebooks' data. A condition names one of them.

    Raises:
        ValueError: if there is no Gaussian, or the std is negative.
    """
    if count < 1:
        raise ValueError(f"count = {count} must be at least 1")
    angles = 2 * math.pi * torch.arange(count) / count
    means = radius * torch.stack([angles.cos(), angles.sin()], dim=1)
    return GaussianMixture(means, torch.full((count,), std), torch.ones(count))


@dataclass(frozen=True, eq=False)
class FieldView:
    """A field at one time, read on a square lattice."""

    t: float
    points: Tensor  # (n, n, 2)
    density: Tensor  # (n, n): of the data with noise, as it is at t
    velocity: Tensor  # (n, n, 2)


@torch.no_grad()
def look_at(
    mixture: GaussianMixture,
    t: float,
    component: int = -1,
    guidance_scale: float = 1.0,
    count: int = 40,
    reach: float = REACH,
) -> FieldView:
    """Density and velocity at one time on count x count points of the plane.

    Args:
        mixture: the data, in the plane.
        t: the time, in [0, 1].
        component: what the field is conditioned on; -1 means all.
        guidance_scale: of the velocity; the density is that of the unguided data.
        count: points a side.
        reach: half the side of the square.
    """
    line = torch.linspace(-reach, reach, count)
    points = torch.cartesian_prod(line, line)
    times, cond = torch.full((len(points),), t), torch.full((len(points),), component)
    density = mixture.velocity.log_density(points, times, cond).exp()
    field = guided(mixture.velocity, guidance_scale, torch.tensor([-1]))
    # cartesian_prod counts the second coordinate first; rows of a picture are its y
    square = (
        leaf.unflatten(0, (count, count)).transpose(0, 1)
        for leaf in (points, density, field(points, times, cond))
    )
    return FieldView(t, *square)


@dataclass(frozen=True, eq=False)
class ToyTask:
    """What is to be distilled: a guided teacher, and the student's steps.

    Args:
        mixture: the data; a condition names a component.
        guidance_scale: of the teacher, 1 or more; 1 means none.
        num_windows: K, the student's calls at inference; at most `TEACHER_STEPS`.
        shift: of the time grid.

    Raises:
        ValueError: if the guidance scale is below 1, or another number is out of range.
    """

    mixture: GaussianMixture = field(default_factory=ring)
    guidance_scale: float = 5.0
    num_windows: int = 4
    shift: float = 3.0

    def __post_init__(self) -> None:
        if not self.guidance_scale >= 1:
            raise ValueError(f"guidance_scale = {self.guidance_scale} must be at least 1 (none)")
        if not 1 <= self.num_windows <= TEACHER_STEPS:
            raise ValueError(f"num_windows = {self.num_windows} must lie in 1 to {TEACHER_STEPS}")

    @property
    def grid(self) -> Tensor:
        """The student's times at inference, (K + 1,)."""
        return rectified_grid(self.num_windows, self.shift)

    @property
    def teacher(self) -> VelocityField:
        """The guided field."""
        return guided(self.mixture.velocity, self.guidance_scale, torch.tensor([-1]))

    def windows(self, method: Method) -> TimeWindows:
        """Those of a method; ReFlow has one, all others K."""
        return TimeWindows.from_grid(
            rectified_grid(method.num_windows or self.num_windows, self.shift)
        )

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Noise (count, d) and the components that it is to become, (count,)."""
        eps = torch.randn(count, self.mixture.means.shape[1], generator=generator)
        cond = torch.multinomial(self.mixture.weights, count, True, generator=generator)
        return eps, cond

    def exam(self, count: int = 1000, seed: int = 1) -> Exam:
        """Noise that no lesson used, and its exact ends by many steps of Heun's method."""
        eps, cond = self.draw(count, torch.Generator().manual_seed(seed))
        fine = rectified_grid(EXACT_STEPS, self.shift)
        return Exam(eps, cond, rollout(self.teacher, eps, fine, cond, heun_step).end)

    def data(self, cond: Tensor, generator: torch.Generator) -> Tensor:
        """A true point of each named component: (b, d)."""
        noise = torch.randn(len(cond), self.mixture.means.shape[1], generator=generator)
        return self.mixture.means[cond] + self.mixture.std[cond, None] * noise


@dataclass(frozen=True)
class ToyReport:
    """One report of a run: the step from 1, its loss, and how far the student has come."""

    step: int
    loss: float
    distance: float
    """Mean distance of the student's ends to the teacher's, in units of the plane."""
    critic_accuracy: float | None = None


@dataclass(frozen=True, eq=False)
class Exam:
    """The same noise for everyone, and where the teacher's exact paths end."""

    eps: Tensor  # (n, d)
    cond: Tensor  # (n,)
    ends: Tensor  # (n, d)

    @torch.no_grad()
    def distances(self, field: VelocityField, grid: Tensor | Sequence[float]) -> Tensor:
        """How far a field's Euler steps arrive from the exact ends, in the plane's units: (n,)."""
        return (rollout(field, self.eps, grid, self.cond).end - self.ends).norm(dim=1)


def pretrain(task: ToyTask, num_steps: int = 300, seed: int = 0) -> ToyField:
    """A network that has learnt the teacher's velocity without guidance: where students begin."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        student = ToyField(task.mixture.means.shape[1], num_conditions=len(task.mixture.means))
    for _ in _anneal(student, num_steps, 5e-3):
        eps, cond = task.draw(256, generator)
        t = torch.rand(256, generator=generator)
        x = interpolate(task.data(cond, generator), eps, t)
        error = student(x, t, cond) - task.mixture.velocity(x, t, cond)
        error.square().mean().backward()
    return student


def distill(
    student: ToyField,
    task: ToyTask,
    method: str = "ota",
    num_steps: int = 400,
    batch_size: int = 128,
    share_at_hi: float = 0.7,
    share_on_policy: float = 0.0,
    lambda_adv: float = 0.1,
    lambda_fm: float = 1.0,
    report_every: int = 20,
    seed: int = 0,
) -> Iterator[ToyReport]:
    """Teach a student in place by one of `METHODS`.

    Every step asks it about `batch_size` samples in each of K windows, or as many in ReFlow's one.

    Args:
        student: from `pretrain`; it changes.
        task: the teacher.
        method: a name in `METHODS`.
        num_steps: optimiser steps; the rate falls to 0 over them.
        batch_size: samples a window.
        share_at_hi: how many of them ask at the window's start, where inference does.
        share_on_policy: how many follow the student's own path from window to window.
        lambda_adv: weight of the critic's judgement, if the method has a critic.
        lambda_fm: weight of its feature matching.
        report_every: steps between reports.
        seed: of all draws.

    Yields:
        A report every so many steps, and after the last.

    Raises:
        ValueError: if the method is unknown, or on-policy starts are asked of one without paths.
    """
    shares, lambdas = (share_at_hi, share_on_policy), (lambda_adv, lambda_fm)
    run = _Run(student, task, find_method(method), batch_size, shares, lambdas, seed)
    exam = task.exam()
    for step in _anneal(student, num_steps, 7e-3):
        loss = run.step()
        if step % report_every == 0 or step == num_steps:
            distance = exam.distances(student, task.grid).mean().item()
            yield ToyReport(step, loss, distance, run.accuracy)


class _Run:
    """One student's lessons: draws, segments, losses, and the critic if there is one."""

    def __init__(
        self,
        student: ToyField,
        task: ToyTask,
        method: Method,
        batch_size: int,
        shares: tuple[float, float],
        lambdas: tuple[float, float],
        seed: int,
    ):
        share_on_policy = shares[1]
        if share_on_policy > 0 and (method.needs_data or method.num_windows == 1):
            raise ValueError(
                f"share_on_policy = {share_on_policy} needs a method whose windows follow a path:"
                " use ota or flowsteer"
            )
        self.student, self.task, self.method = student, task, method
        self.windows = task.windows(method)
        self.shares, self.lambdas = shares, lambdas
        self.count = batch_size * task.num_windows // self.windows.num_windows
        self.generator = torch.Generator().manual_seed(seed)
        self.start = on_policy_starts(student) if share_on_policy > 0 else method.start
        self.solve = Solve(TEACHER_STEPS // self.windows.num_windows, task.shift, "multistep")
        self.critic: TrajectoryCritic | None = None
        self.accuracy: float | None = None
        if method.adversarial:
            self.critic = TrajectoryCritic(ToyBackbone(copy.deepcopy(student)))
            self.judging = torch.optim.Adam(self.critic.parameters(), lr=1e-3)

    def step(self) -> float:
        """Gradients of one step in the student; the critic is moved as well."""
        batch = self._batch()
        segments = list(self.start(self.task.teacher, batch, self.windows, self.solve))
        pairs = zip(segments, batch.depths, strict=True)
        losses = [
            window_velocity_loss(self.student, segment, depths, batch.cond)
            for segment, depths in pairs
        ]
        loss = total = torch.stack(losses).mean()
        if self.critic is not None:
            states = edge_states(self.student, segments, batch)
            adversarial, matching = student_losses(self.critic, states, batch.cond)
            lambda_adv, lambda_fm = self.lambdas
            total = total + lambda_adv * adversarial + lambda_fm * matching
        total.backward()
        if self.critic is not None:
            self.judging.zero_grad()
            judged, health = critic_loss(self.critic, states, batch.cond)
            judged.backward()
            self.judging.step()
            self.accuracy = health.accuracy.mean().item()
        return loss.item()

    def _batch(self) -> Batch:
        """Draws of one step; half-open shares of them ask at the start, or follow the student."""
        generator, (at_hi, on_policy) = self.generator, self.shares
        eps, cond = self.task.draw(self.count, generator)
        depths, pick = torch.rand(2, self.windows.num_windows, self.count, generator=generator)
        own, edge = torch.rand(2, self.count, generator=generator)
        return Batch(
            eps,
            depths * (pick >= at_hi),
            cond,
            x_0=self.task.data(cond, generator) if self.method.needs_data else None,
            on_policy=own < on_policy,
            edge=locate_edges(edge, self.windows.num_windows),
        )


def _anneal(field: ToyField, num_steps: int, learning_rate: float) -> Iterator[int]:
    """Step numbers from 1; gradients made while one is out move the field when the next is asked.

    The rate falls to 0 in a straight line, and the last step is taken before the last number.
    """
    optimizer = torch.optim.Adam(field.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: 1 - done / num_steps)
    for step in range(1, num_steps + 1):
        optimizer.zero_grad()
        yield step
        optimizer.step()
        schedule.step()
