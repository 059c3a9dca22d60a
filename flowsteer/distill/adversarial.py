"""Adversarial distillation on the teacher's paths (Ke et al., FlowSteer, arXiv 2511.18834).

At the end of a window the teacher's state is real and the student's is fake. Both come from the
same noise under the same prompt, so that their features in the critic can be matched as well:

    L = L_dist + lambda_adv L_adv + lambda_fm L_fm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from flowsteer.distill.critic import CriticOutput
from flowsteer.distill.games import (
    R1_STEP,
    R1_WEIGHT,
    AdversarialLoss,
    approximate_r1,
    find_adversarial_loss,
    weighted_mean,
)
from flowsteer.distill.starts import Batch, Segment, own_states
from flowsteer.flow import TimeWindows, VelocityField, euler_step


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
        windows = TimeWindows((*(s.t_hi for s in segments), segments[-1].t_lo))
        entries = own_states(student, batch.eps, windows, batch.cond)
    else:
        entries = [s.x_hi for s in segments]
    x_hi = torch.stack(entries)[edge, rows].detach()
    real = torch.stack([s.x_lo for s in segments])[edge, rows].detach()
    bounds = torch.tensor([(s.t_hi, s.t_lo) for s in segments], dtype=real.dtype)
    t_hi, t_lo = bounds.to(edge.device, non_blocking=True)[edge].unbind(1)
    return EdgeStates(real, euler_step(student, x_hi, t_hi, t_lo, batch.cond), t_lo)


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
    critic: nn.Module,
    states: EdgeStates,
    cond: Any,
    kind: str = "hinge",
    weights: Tensor | None = None,
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
        weights: (b,) of each sample's L_adv, such as `signal_weights`; None weighs all by 1.

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
    verdicts = loss.student(real.logits, fake.logits)
    return weighted_mean(verdicts, weights), F.mse_loss(fake.features, real.features)


def critic_loss(
    critic: nn.Module,
    states: EdgeStates,
    cond: Any,
    kind: str = "hinge",
    noise: Tensor | None = None,
    r1_weight: float = R1_WEIGHT,
    r2_weight: float = 0.0,
    wrong_weight: float = 0.0,
    weights: Tensor | None = None,
) -> tuple[Tensor, CriticHealth]:
    """What the critic minimises; no gradient flows into the student.

    All states share one pass, so that whatever the batch has in common, prompts, noise and edges,
    is common to real and fake.

    Args:
        critic: a `TrajectoryCritic`.
        states: from `edge_states`.
        cond: the samples' prompts.
        kind: of `ADVERSARIAL_LOSSES`.
        noise: standard normal, as `states.real`, for `approximate_r1`; None leaves it out.
        r1_weight: of `approximate_r1` on real states.
        r2_weight: of the same on fake states.
        wrong_weight: of the game in which real states under the next sample's prompt are the fake
            ones, so that the critic must read prompts (Reed et al. 2016, arXiv 1605.05396).
        weights: (b,) of each sample's share in both games; None weighs all by 1.

    Returns:
        A scalar, float32 (float64 if the states are), and how the critic fares.

    Raises:
        ValueError: if `kind` is unknown, or is unbounded and has no noise, or a weight has nothing
            to weigh, or the noise or the condition has another batch than the states.
    """
    loss = find_adversarial_loss(kind)
    _check_noise(kind, loss, states, noise, r2_weight)
    real, fake = states.real.detach(), states.fake.detach()
    asked = {"real": (real, cond), "fake": (fake, cond)}
    if noise is not None:
        asked["r1"] = real + R1_STEP * noise, cond
    if noise is not None and r2_weight > 0:
        asked["r2"] = fake + R1_STEP * noise, cond
    if wrong_weight > 0:
        asked["wrong"] = real, _next_prompts(cond)
    said = _judge_together(critic, states.t, asked)
    total = weighted_mean(loss.critic(said["real"], said["fake"]), weights)
    if "r1" in said:
        total = total + r1_weight * approximate_r1(said["real"], said["r1"], R1_STEP)
    if "r2" in said:
        total = total + r2_weight * approximate_r1(said["fake"], said["r2"], R1_STEP)
    if "wrong" in said:
        misled = weighted_mean(loss.critic(said["real"], said["wrong"]), weights)
        total = total + wrong_weight * misled
    return total, _health(said["real"].detach(), said["fake"].detach(), loss.relative)


def _check_noise(
    kind: str, loss: AdversarialLoss, states: EdgeStates, noise: Tensor | None, r2_weight: float
) -> None:
    if noise is None and loss.unbounded:
        raise ValueError(f"{kind} needs noise: nothing else keeps its critic's slope finite")
    if noise is None and r2_weight > 0:
        raise ValueError(f"r2_weight = {r2_weight} needs noise: give one a state, or no weight")
    if noise is not None and noise.shape != states.real.shape:
        shapes = f"{tuple(noise.shape)} and {tuple(states.real.shape)}"
        raise ValueError(f"noise and states have shapes {shapes}: give one noise a state")


def _judge_together(
    critic: nn.Module, t: Tensor, asked: Mapping[str, tuple[Tensor, Any]]
) -> dict[str, Tensor]:
    """Logits of each (states, conditions), by name, from one pass."""
    states, conditions = zip(*asked.values(), strict=True)
    copies = len(asked)
    joined = _join(conditions, len(t))
    logits = critic(torch.cat(states), t.repeat(copies), joined).logits.chunk(copies)
    return dict(zip(asked, logits, strict=True))


def _health(real: Tensor, fake: Tensor, relative: bool) -> CriticHealth:
    threshold = (real.mean() + fake.mean()) / 2 if relative else 0.0
    # signs, so that a logit on the threshold counts half
    sides = (real - threshold).sign().mean(1) - (fake - threshold).sign().mean(1)
    # both from one noise: the critic may know which is which and yet have no common threshold
    ranked = 0.5 + (real.mean(1) - fake.mean(1)).sign() / 2
    return CriticHealth(real.mean(), fake.mean(), 0.5 + sides / 4, ranked)


def _next_prompts(cond: Any) -> Any:
    """Each sample's prompt replaced by the next one's, leaf by leaf."""
    if isinstance(cond, Tensor) and len(cond) > 1:
        return cond.roll(-1, 0)
    if isinstance(cond, tuple):
        leaves = [_next_prompts(leaf) for leaf in cond]
        return type(cond)(*leaves) if hasattr(cond, "_fields") else tuple(leaves)
    raise ValueError("wrong_weight needs the prompts of two samples or more to exchange")


def _join(conditions: Sequence[Any], batch: int) -> Any:
    """Conditions of several batches in a row, leaf by leaf; None stays None."""
    first = conditions[0]
    if isinstance(first, Tensor):
        if len(first) != batch:
            raise ValueError(f"conditions for {len(first)} samples do not fit a batch of {batch}")
        return torch.cat(list(conditions))
    if isinstance(first, tuple):
        leaves = [_join(leaves, batch) for leaves in zip(*conditions, strict=True)]
        return type(first)(*leaves) if hasattr(first, "_fields") else tuple(leaves)
    if first is None:
        return None
    raise ValueError(
        f"a condition is a {type(first).__name__}: give a tensor or a tuple of tensors, or None"
    )
