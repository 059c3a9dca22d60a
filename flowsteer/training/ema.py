"""Exponential moving average of the trained parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor


class ExponentialMovingAverage:
    """Float32 averages of named parameters.

    The decay is warmed up as (1 + n) / (10 + n), so that early averages are not stuck at the start.
    """

    def __init__(self, parameters: Mapping[str, Tensor], decay: float):
        self.decay = decay
        self.parameters = dict(parameters)
        self.averages = {name: p.detach().float().clone() for name, p in parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the averages towards the parameters after optimiser step `step` (from 1)."""
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        now = [p.detach().float() for p in self.parameters.values()]
        torch._foreach_lerp_(list(self.averages.values()), now, weight)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the parameters hold their averages; after, their own values again."""
        own = {name: p.detach().clone() for name, p in self.parameters.items()}
        self.write(self.averages)
        try:
            yield
        finally:
            self.write(own)

    @torch.no_grad()
    def write(self, values: Mapping[str, Tensor]) -> None:
        """Give the parameters these values."""
        for name, parameter in self.parameters.items():
            parameter.copy_(values[name])
