"""Timings, ratios with the limits they should keep, and tables of both."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from flowsteer.validation import check_whole_number


@dataclass(frozen=True)
class Timing:
    """Seconds of one thing, run after run."""

    name: str
    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median of the runs, in seconds."""
        return statistics.median(self.seconds)


@dataclass(frozen=True)
class Ratio:
    """A figure with the limit that it should keep."""

    name: str
    value: float
    at_least: float | None = None
    at_most: float | None = None

    @property
    def kept(self) -> bool:
        """Whether the value keeps its limit."""
        low = -float("inf") if self.at_least is None else self.at_least
        high = float("inf") if self.at_most is None else self.at_most
        return low <= self.value <= high

    def __str__(self) -> str:
        """Such as "teacher / student 7.1 (at least 6: yes)"."""
        limits = [("at least", self.at_least), ("at most", self.at_most)]
        limit = ", ".join(f"{word} {bound:g}" for word, bound in limits if bound is not None)
        return f"{self.name} {self.value:.3g} ({limit}: {'yes' if self.kept else 'NO'})"


@dataclass(frozen=True)
class BenchReport:
    """One benchmark's timings and ratios."""

    title: str
    timings: tuple[Timing, ...]
    ratios: tuple[Ratio, ...]
    notes: tuple[str, ...] = ()

    def table(self) -> str:
        """Lines for a terminal, without a final newline."""
        width = max(len(timing.name) for timing in self.timings)
        slowest = max(second for timing in self.timings for second in timing.seconds)
        unit, factor = ("s", 1) if slowest >= 0.1 else ("ms", 1000)
        names = "".join(f"  {name:>{8 + len(unit)}}" for name in ("median", "fastest", "slowest"))
        head = f"{self.title}\n{'':{width}}{names}  runs"

        def show(seconds: float) -> str:
            return f"{seconds * factor:7.3f} {unit}"

        rows = [
            f"{t.name:{width}}  {show(t.median)}  {show(min(t.seconds))}  {show(max(t.seconds))}"
            f"  {len(t.seconds):4d}"
            for t in self.timings
        ]
        return "\n".join([head, *rows, *self.notes, *map(str, self.ratios)])

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self) | {
            "medians": {timing.name: timing.median for timing in self.timings},
            "kept": all(ratio.kept for ratio in self.ratios),
        }


def interleave(tasks: Mapping[str, Callable[[], object]], repeats: int) -> list[Timing]:
    """Time every task `repeats` times in turn, after one untimed round.

    Raises:
        ValueError: if `repeats` is not a whole number from 1 to 1,000.
    """
    check_whole_number("repeats", repeats, 1, 1000)
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for round_ in range(repeats + 1):
        for name, task in tasks.items():
            start = time.perf_counter()
            task()
            if round_ > 0:
                seconds[name].append(time.perf_counter() - start)
    return [Timing(name, tuple(values)) for name, values in seconds.items()]
