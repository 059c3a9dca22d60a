"""The randomness of distillation, one generator a sample.

Sample n of a run draws from a generator of its own, seeded by (seed, n), always on the CPU. So what
a run trains on depends on neither batch size nor accumulation, number of processes or device.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from flowsteer.training.data import seeded_generator
from flowsteer.training.sources import Drawn, Source


class Draws(NamedTuple):
    """What a batch of b samples draws; everything but the noise is even on [0, 1)."""

    eps: Tensor  # (b, *shape): standard normal
    depths: Tensor  # (K, b): where in each window
    at_hi: Tensor  # (K, b): whether at its start instead
    guidance: Tensor  # (b,): of the teacher's scale
    on_policy: Tensor  # (b,): whose state windows start from
    edge: Tensor  # (b,): where the critic looks

    def to(self, device: torch.device | str) -> Draws:
        """The same on another device."""
        return Draws(*(leaf.to(device, non_blocking=True) for leaf in self))


def draw_samples(seed: int, numbers: range, shape: tuple[int, ...], num_windows: int) -> Draws:
    """The draws of samples `numbers`, noise of `shape` each, on the CPU."""
    noises, evens = [], []
    for number in numbers:
        generator = seeded_generator("cpu", seed, number)
        noises.append(torch.randn(shape, generator=generator))
        evens.append(torch.rand(2 * num_windows + 3, generator=generator))
    even = torch.stack(evens, dim=1)  # (2 K + 3, b)
    depths, at_hi, rest = even.split([num_windows, num_windows, 3])
    return Draws(torch.stack(noises), depths, at_hi, *rest)


class Samples(NamedTuple):
    """A batch as it comes from a worker."""

    drawn: Drawn
    draws: Draws


@dataclass(frozen=True)
class SampleBatch:
    """Makes batch number n: samples n b to (n + 1) b - 1. Picklable."""

    source: Source
    seed: int
    batch_size: int
    shape: tuple[int, ...]
    num_windows: int

    def __call__(self, index: int) -> Samples:
        """Prompts, pictures if the source has them, and draws."""
        numbers = range(index * self.batch_size, (index + 1) * self.batch_size)
        draws = draw_samples(self.seed, numbers, self.shape, self.num_windows)
        return Samples(self.source(numbers), draws)
