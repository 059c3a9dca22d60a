"""Batches by number: what a step trains on is a function of the seed and the step alone."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from flowsteer.training.interruption import catch_in_worker

Batch = TypeVar("Batch")


class NumberedBatches(Generic[Batch]):
    """`batches(index)` gives `make(index)`, made ahead in worker processes.

    Args:
        make: a picklable function from a batch number to a batch.
        num_workers: processes; 0 makes batches in this one.
        stride: distance between the numbers asked for in turn (the number of processes).
    """

    def __init__(self, make: Callable[[int], Batch], num_workers: int = 0, stride: int = 1):
        self.make, self.num_workers, self.stride = make, num_workers, stride
        self._expected: int | None = None
        self._iterator: Iterator[Batch] = iter(())

    def __call__(self, index: int) -> Batch:
        """Batch number `index`; asking in turn is quick, a jump restarts the workers.

        Raises:
            ValueError: as `make` does, in whatever process.
        """
        if index != self._expected:
            self._iterator = self._loader(index)
        self._expected = index + self.stride
        batch = next(self._iterator)
        if isinstance(batch, _Refused):
            raise ValueError(batch.message)
        return batch

    def _loader(self, index: int) -> Iterator[Batch]:
        if self.num_workers == 0:
            return map(self.make, itertools.count(index, self.stride))
        loader = DataLoader(
            _Numbered(self.make),
            sampler=itertools.count(index, self.stride),  # type: ignore[arg-type]
            batch_size=None,
            num_workers=self.num_workers,
            prefetch_factor=4,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=_begin_work,
        )
        return iter(loader)


class _Refused(NamedTuple):
    """What a worker sends instead of a batch: its ValueError, without the worker's traceback."""

    message: str


class _Numbered(Dataset):
    def __init__(self, make: Callable[[int], Any]):
        self.make = make

    def __getitem__(self, index: int) -> Any:
        try:
            return self.make(index)
        except ValueError as error:
            return _Refused(str(error))


def _begin_work(worker: int) -> None:
    torch.set_num_threads(1)
    catch_in_worker()


def seeded_generator(device: torch.device | str, *numbers: int) -> torch.Generator:
    """A generator on `device` for one (seed, step, …): the same numbers give the same draws.

    The numbers are hashed to 32 bits: torch's generator on the CPU reads no more of its seed, and
    sums or products of them would soon meet again.
    """
    digest = hashlib.sha256(repr(numbers).encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:4], "big"))
