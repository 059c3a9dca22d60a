"""The games that a critic and a student play over logits, and what keeps the critic in bounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

R1_STEP = 0.1
"""How far real states are moved to feel the critic's slope; bfloat16 rounds them by 0.004."""
R1_WEIGHT = 1.0
"""Of the squared slope in the critic's loss."""


class AdversarialLoss(NamedTuple):
    """A game over logits (b, n), which are high where the critic believes in the teacher.

    Both losses are given (real, fake), two states of one noise, and answer logit by logit, (b, n).
    """

    critic: Callable[[Tensor, Tensor], Tensor]
    """What the critic minimises."""
    student: Callable[[Tensor, Tensor], Tensor]
    """What the student minimises."""
    relative: bool = False
    """Whether only differences of logits mean anything; zero is no threshold then."""
    unbounded: bool = False
    """Whether logits grow for ever; then the critic's slope must be penalised."""


ADVERSARIAL_LOSSES: Mapping[str, AdversarialLoss] = {
    # Lim and Ye 2017 (arXiv 1705.02894), equations 5 and 6; FlowSteer's choice
    "hinge": AdversarialLoss(
        lambda real, fake: F.relu(1 - real) + F.relu(1 + fake),
        lambda _, fake: -fake,
    ),
    # Goodfellow et al. 2014 (arXiv 1406.2661): log D and log(1 - D), D = sigmoid(logit)
    "non_saturating": AdversarialLoss(
        lambda real, fake: F.softplus(-real) + F.softplus(fake),
        lambda _, fake: F.softplus(-fake),
    ),
    # Mao et al. 2017 (arXiv 1611.04076), equation 2 with a = -1, b = c = 1: zero is halfway
    "least_squares": AdversarialLoss(
        lambda real, fake: ((real - 1).square() + (fake + 1).square()) / 2,
        lambda _, fake: (fake - 1).square() / 2,
    ),
    # Arjovsky et al. 2017 (arXiv 1701.07875), equation 3; its Lipschitz bound is `approximate_r1`
    "wasserstein": AdversarialLoss(
        lambda real, fake: fake - real,
        lambda _, fake: -fake,
        relative=True,
        unbounded=True,
    ),
    # Jolicoeur-Martineau 2018 (arXiv 1807.00734), as R3GAN plays it (Huang et al. 2025, arXiv
    # 2501.05441, equation 2): which of the two is real; a logit alone means nothing
    "relativistic": AdversarialLoss(
        lambda real, fake: F.softplus(fake - real),
        lambda real, fake: F.softplus(real - fake),
        relative=True,
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
    """mean((D(x) - D(x + step * noise))^2) / step^2: the mean squared slope |dD/dx|^2.

    Lin et al. 2025 (arXiv 2501.08316) replace the second-order gradient of R1 by this difference,
    which fused attention can do. Divided by step^2, its weight does not depend on the step. On real
    states it is R1, on fake ones R2 (R3GAN needs both).

    Args:
        logits: of some states, (b, n).
        perturbed: of the same states moved by `step` times standard normal noise, (b, n).
        step: how far they were moved.
    """
    return ((logits - perturbed) / step).square().mean()


def signal_weights(t: Tensor) -> Tensor:
    """(1 - t)^2, the share of the signal in a state's power: (b,).

    Near noise the two states of a pair are nearly one, and a verdict on them is nearly chance.
    """
    return (1 - t).square()


def weighted_mean(losses: Tensor, weights: Tensor | None) -> Tensor:
    """Over samples and logits (b, n), each sample times its weight."""
    return losses.mean() if weights is None else (weights[:, None] * losses).mean()
