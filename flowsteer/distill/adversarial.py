"""Adversarial distillation on the teacher's paths (Ke et al., FlowSteer, arXiv 2511.18834).

At the end of a window the teacher's state is real and the student's is fake. Both come from the
same noise under the same prompt, so that their features in the critic can be matched as well:

    L = L_dist + lambda_adv L_adv + lambda_fm L_fm.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from flowsteer.distill.critic import CriticOutput
from flowsteer.distill.starts import Batch, Segment
from flowsteer.flow import VelocityField, euler_step, expand_time

R1_STEP = 0.1
"""How far real states are moved to feel the critic's slope; bfloat16 rounds them by 0.004."""
R1_WEIGHT = 1.0
"""Of the squared slope in the critic's loss."""


@dataclass(frozen=True, eq=False)
class EdgeStates:
    """The two states of each sample at the end of its window."""

    real: Tensor  # (b, *d): the teacher's
    fake: Tensor  # (b, *d): the student's, with gradient
    t: Tensor  # (b,): the time there


class CriticHealth(NamedTuple):
    """How well a critic tells the two apart, without gradient."""

    real: Tensor  # mean logit of the teacher's states, a scalar
    fake: Tensor  # mean logit of the student's states, a scalar
    accuracy: Tensor  # (b,): share of logits on their own side of the threshold; 0.5 is guessing
    ranked: Tensor  # (b,): 1 where the teacher's state has the higher mean logit of the two, else 0


class AdversarialLoss(NamedTuple):
    """A game over logits, which are high where the critic believes in the teacher."""

    critic: Callable[[Tensor, Tensor], Tensor]
    """(real, fake) -> what the critic minimises."""
    student: Callable[[Tensor], Tensor]
    """fake -> what the student minimises."""
    unbounded: bool = False
    """Whether logits grow for ever and zero means nothing; then the critic's slope is penalised."""


ADVERSARIAL_LOSSES: Mapping[str, AdversarialLoss] = {
    # Lim and Ye 2017 (arXiv 1705.02894), equations 5 and 6; FlowSteer's choice
    "hinge": AdversarialLoss(
        lambda real, fake: F.relu(1 - real).mean() + F.relu(1 + fake).mean(),
        lambda fake: -fake.mean(),
    ),
    # Goodfellow et al. 2014 (arXiv 1406.2661): log D and log(1 - D), D = sigmoid(logit)
    "non_saturating": AdversarialLoss(
        lambda real, fake: F.softplus(-real).mean() + F.softplus(fake).mean(),
        lambda fake: F.softplus(-fake).mean(),
    ),
    # Mao et al. 2017 (arXiv 1611.04076), equation 2 with a = -1, b = c = 1: zero is halfway
    "least_squares": AdversarialLoss(
        lambda real, fake: ((real - 1).square().mean() + (fake + 1).square().mean()) / 2,
        lambda fake: (fake - 1).square().mean() / 2,
    ),
    # Arjovsky et al. 2017 (arXiv 1701.07875), equation 3; its Lipschitz bound is `approximate_r1`
    "wasserstein": AdversarialLoss(
        lambda real, fake: fake.mean() - real.mean(),
        lambda fake: -fake.mean(),
        unbounded=True,
    ),
}


def find_adversarial_loss(kind: str) -> AdversarialLoss:
    """The losses of a game's name.

    Raises:
        ValueError: if there is no such game.
    """
    if kind not in ADVERSARIAL_LOSSES:
        known = ", ".join(ADVERSARIAL_LOSSES)
        raise ValueError(f"adversarial loss = {kind!r} is unknown; use one of {known}")
    return ADVERSARIAL_LOSSES[kind]


def approximate_r1(logits: Tensor, perturbed: Tensor, step: float) -> Tensor:
    """mean((D(x) - D(x + step * noise))^2) / step^2: the mean squared slope |dD/dx|^2 on real x.

    Lin et al. 2025 (arXiv 2501.08316) replace the second-order gradient of R1 by this difference,
    which fused attention can do. Divided by step^2, its weight does not depend on the step.

    Args:
        logits: of real states, (b, n).
        perturbed: of the same states moved by `step` times standard normal noise, (b, n).
        step: how far they were moved.
    """
    return ((logits - perturbed) / step).square().mean()


def edge_states(
    student: VelocityField, segments: Sequence[Segment], batch: Batch, own_rollout: bool = False
) -> EdgeStates:
    """The teacher's and the student's state of each sample at the end of window `batch.edge`.

    The student's comes from one call with gradient on the whole batch, each sample at its own
    time. It starts from the teacher's state at the window's start, as in training; or with
    `own_rollout` from where the student's own calls arrive from the noise, as at inference, which
    costs K - 1 more calls without gradient.

    Args:
        student: the field that is taught.
        segments: the teacher's passages through all K windows, noisiest first.
        batch: what they were made from, with an `edge`.
        own_rollout: start from the student's own states.

    Raises:
        ValueError: if the batch has no edges, or they do not fit the samples and segments.
    """
    edge = _check_edges(batch, len(segments))
    rows = torch.arange(len(edge), device=edge.device)
    if own_rollout:
        x_hi = _own_states(student, segments, batch, edge)
    else:
        x_hi = torch.stack([s.x_hi for s in segments])[edge, rows].detach()
    real = torch.stack([s.x_lo for s in segments])[edge, rows].detach()
    bounds = torch.tensor([(s.t_hi, s.t_lo) for s in segments], dtype=real.dtype)
    t_hi, t_lo = bounds.to(edge.device, non_blocking=True)[edge].unbind(1)
    return EdgeStates(real, euler_step(student, x_hi, t_hi, t_lo, batch.cond), t_lo)


@torch.no_grad()
def _own_states(
    student: VelocityField, segments: Sequence[Segment], batch: Batch, edge: Tensor
) -> Tensor:
    """Where the student's own Euler steps from the noise enter each sample's window: (b, *d)."""
    x = batch.eps
    for k, segment in enumerate(segments[:-1]):
        # the whole batch, arrived or not: shapes that change with the draw would defeat compiling
        moved = euler_step(student, x, segment.t_hi, segment.t_lo, batch.cond)
        x = torch.where(expand_time(edge, x) > k, moved, x)
    return x


def _check_edges(batch: Batch, num_windows: int) -> Tensor:
    edge = batch.edge
    if edge is None:
        raise ValueError("the critic looks at window ends: give the batch an edge (locate_edges)")
    if edge.shape != batch.eps.shape[:1] or edge.dtype != torch.int64:
        raise ValueError(
            f"edge has shape {tuple(edge.shape)} and dtype {edge.dtype}: give one int64 for each of"
            f" the {len(batch.eps)} samples"
        )
    # on a GPU the answer would have to be waited for, and indexing checks there by itself
    if edge.device.type == "cpu" and not bool(((edge >= 0) & (edge < num_windows)).all()):
        raise ValueError(
            f"edge = {edge.min()} to {edge.max()} must lie in 0 to {num_windows - 1}, the segments"
        )
    return edge


def student_losses(
    critic: nn.Module, states: EdgeStates, cond: Any, kind: str = "hinge"
) -> tuple[Tensor, Tensor]:
    """What the student minimises: L_adv and feature matching L_fm.

    L_fm is the mean squared difference between the critic's features of the student's state and
    of the teacher's from the same noise. Gradients flow through the critic into `states.fake`
    alone: the critic's parameters stand in as constants, and none of them is touched.

    Args:
        critic: a `TrajectoryCritic`.
        states: from `edge_states`.
        cond: the samples' prompts.
        kind: of `ADVERSARIAL_LOSSES`.

    Returns:
        Two scalars, float32 (float64 if the states are).

    Raises:
        ValueError: if `kind` is unknown.
    """
    loss = find_adversarial_loss(kind)
    constants = {name: p.detach() for name, p in critic.named_parameters()}

    def judge(x: Tensor) -> CriticOutput:
        return functional_call(critic, constants, (x, states.t, cond))

    with torch.no_grad():
        real = judge(states.real)
    fake = judge(states.fake)
    return loss.student(fake.logits), F.mse_loss(fake.features, real.features)


def critic_loss(
    critic: nn.Module,
    states: EdgeStates,
    cond: Any,
    kind: str = "hinge",
    noise: Tensor | None = None,
    r1_weight: float = R1_WEIGHT,
) -> tuple[Tensor, CriticHealth]:
    """What the critic minimises; no gradient flows into the student.

    Real and fake states share one pass, so that whatever the batch has in common, prompts, noise
    and edges, is common to both.

    Args:
        critic: a `TrajectoryCritic`.
        states: from `edge_states`.
        cond: the samples' prompts.
        kind: of `ADVERSARIAL_LOSSES`.
        noise: standard normal, as `states.real`, for `approximate_r1`; None leaves it out.
        r1_weight: of `approximate_r1`.

    Returns:
        A scalar, float32 (float64 if the states are), and how the critic fares.

    Raises:
        ValueError: if `kind` is unknown, or is wasserstein without noise, or the noise or the
            condition has another batch than the states.
    """
    loss = find_adversarial_loss(kind)
    x = [states.real.detach(), states.fake.detach()]
    if noise is not None:
        if noise.shape != states.real.shape:
            shapes = f"{tuple(noise.shape)} and {tuple(states.real.shape)}"
            raise ValueError(f"noise and states have shapes {shapes}: give one noise a state")
        x.append(states.real.detach() + R1_STEP * noise)
    elif loss.unbounded:
        raise ValueError(f"{kind} needs noise: nothing else keeps its critic's slope finite")
    copies = len(x)
    conditions = _repeat(cond, copies, len(states.real))
    judged = critic(torch.cat(x), states.t.repeat(copies), conditions)
    real, fake, *perturbed = judged.logits.chunk(copies)
    total = loss.critic(real, fake)
    if perturbed:
        total = total + r1_weight * approximate_r1(real, perturbed[0], R1_STEP)
    return total, _health(real.detach(), fake.detach(), loss.unbounded)


def _health(real: Tensor, fake: Tensor, unbounded: bool) -> CriticHealth:
    threshold = (real.mean() + fake.mean()) / 2 if unbounded else 0.0
    # signs, so that a logit on the threshold counts half
    sides = (real - threshold).sign().mean(1) - (fake - threshold).sign().mean(1)
    # both from one noise: the critic may know which is which and yet have no common threshold
    ranked = 0.5 + (real.mean(1) - fake.mean(1)).sign() / 2
    return CriticHealth(real.mean(), fake.mean(), 0.5 + sides / 4, ranked)


def _repeat(cond: Any, copies: int, batch: int) -> Any:
    """The conditions of `copies` batches in a row, leaf by leaf; None stays None."""
    if isinstance(cond, Tensor):
        if len(cond) != batch:
            raise ValueError(f"conditions for {len(cond)} samples do not fit a batch of {batch}")
        return torch.cat([cond] * copies)
    if isinstance(cond, tuple):
        leaves = [_repeat(leaf, copies, batch) for leaf in cond]
        return type(cond)(*leaves) if hasattr(cond, "_fields") else tuple(leaves)
    if cond is None:
        return None
    raise ValueError(
        f"a condition is a {type(cond).__name__}: give a tensor or a tuple of tensors, or None"
    )
