"""Small networks for points in the plane: a student that learns in seconds, and its critic's eyes.

They are to `SD3Field` and its backbone what the Gaussian mixture is to the teacher.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

OCTAVES = 4  # frequencies of the time features: half a turn over [0, 1], and its doubles


class ToyField(nn.Module):
    """A residual network as a `VelocityField` over points (b, dim).

    The condition is that of `GaussianMixtureField`: int64 (b,), the number of a component, or -1
    for all of them; None means all.

    Args:
        dim: of the points.
        width: of the hidden layers.
        depth: number of residual blocks.
        num_conditions: how many components a condition may name.
    """

    def __init__(self, dim: int = 2, width: int = 64, depth: int = 3, num_conditions: int = 0):
        super().__init__()
        self.width = width
        self.embed_point = nn.Linear(dim, width)
        self.embed_time = nn.Linear(2 * OCTAVES + 1, width)
        self.embed_condition = nn.Embedding(num_conditions + 1, width)  # the last stands for all
        self.blocks = nn.ModuleList(_Block(width) for _ in range(depth))
        self.to_velocity = nn.Linear(width, dim)

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        """Velocity (b, dim) at points x (b, dim) and times t (b,).

        Raises:
            ValueError: if `cond` names a component that does not exist.
        """
        return self.to_velocity(F.silu(self.features(x, t, cond)[0][-1]))

    def features(self, x: Tensor, t: Tensor, cond: Tensor | None) -> tuple[list[Tensor], Tensor]:
        """Hidden values after each block, each (b, width), and the conditioning (b, width)."""
        told = F.silu(self.embed_time(_time_features(t)) + self._embed(cond, len(x)))
        h, hidden = self.embed_point(x), []
        for block in self.blocks:
            h = block(h, told)
            hidden.append(h)
        return hidden, told

    def _embed(self, cond: Tensor | None, batch: int) -> Tensor:
        last = self.embed_condition.num_embeddings - 1
        if cond is None:
            return self.embed_condition.weight[last].expand(batch, -1)
        if not bool(((cond >= -1) & (cond < last)).all()):
            raise ValueError(f"conditions are {cond.tolist()}: give -1 (all) to {last - 1}")
        return self.embed_condition(torch.where(cond < 0, last, cond))


class ToyBackbone(nn.Module):
    """The blocks of a `ToyField` as a critic's backbone (`distill.critic.Backbone`).

    A point is one token. It works on the field's own blocks: give it a copy to train.
    """

    def __init__(self, field: ToyField):
        super().__init__()
        self.field = field
        self.width = self.cond_width = field.width
        self.depth = len(field.blocks)

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None) -> tuple[list[Tensor], Tensor]:
        """Features after each block, each (b, 1, width), and the conditioning (b, width)."""
        hidden, told = self.field.features(x, t, cond)
        return [h[:, None] for h in hidden], told


class _Block(nn.Module):
    """h + MLP(h, conditioning)."""

    def __init__(self, width: int):
        super().__init__()
        self.hidden = nn.Linear(width, width)
        self.conditioning = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, h: Tensor, told: Tensor) -> Tensor:
        return h + self.out(F.silu(self.hidden(F.silu(h)) + self.conditioning(told)))


def _time_features(t: Tensor) -> Tensor:
    """t and its sines and cosines at doubling frequencies: (b, 2 OCTAVES + 1)."""
    angles = math.pi * t[:, None] * 2.0 ** torch.arange(OCTAVES, device=t.device)
    return torch.cat([t[:, None], angles.sin(), angles.cos()], dim=1)
