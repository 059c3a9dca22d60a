"""From cells to rows of a table: scores of all seeds on all prompts, and intervals over both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flowsteer.measure.bootstrap import Interval, crossed_bootstrap, crossed_interval
from flowsteer.reproduce.cells import ablation_name
from flowsteer.reproduce.store import Record

Answer = Mapping[str, Any]
"""What `Result.to_json` wrote of one way of sampling."""


def last_answer(record: Record) -> Answer:
    """Of a training cell: its last checkpoint's, in the way that counts."""
    return record["results"]["checkpoints"][-1]["ways"][0]


@dataclass(frozen=True, eq=False)
class Scores:
    """One row: s runs on the same n prompts; of one without training, s is 1 and its seed None."""

    label: str
    seeds: tuple[int | None, ...]
    correct: Tensor  # (s, n), 0 or 1
    distances: Tensor  # (s, n), relative L2 to the teacher's final latents
    frechet: tuple[float, ...]  # of each run's pictures to the teacher's

    @property
    def emoji_eval(self) -> Interval:
        """Share of prompts obeyed; the six tasks have as many prompts each."""
        return crossed_interval(self.correct)

    @property
    def distance(self) -> Interval:
        """Mean distance to the teacher."""
        return crossed_interval(self.distances)

    @property
    def mean_frechet(self) -> float:
        """Over the runs."""
        return sum(self.frechet) / len(self.frechet)


def scores_of(
    label: str, answers: Sequence[Answer], seeds: Sequence[int | None] = (None,)
) -> Scores:
    """A row from the answers of its runs, a seed each.

    Raises:
        ValueError: if the runs were judged on different numbers of prompts.
    """
    counts = {len(answer["correct"]) for answer in answers}
    if len(counts) != 1:
        raise ValueError(
            f"the runs of {label!r} were judged on {sorted(counts)} prompts; evaluate them on as"
            " many"
        )
    return Scores(
        label,
        tuple(seeds),
        torch.tensor([[float(c) for c in answer["correct"]] for answer in answers]),
        torch.tensor([answer["distances"] for answer in answers], dtype=torch.float64),
        tuple(answer["frechet"] for answer in answers),
    )


def gain(a: Scores, b: Scores, of: str = "correct") -> tuple[Interval, int]:
    """How much higher row a scores than row b, over the seeds that both have, and their number.

    A row without seeds (a teacher) pairs with all of the other's.

    Args:
        a: a row.
        b: what it is held against.
        of: "correct" or "distances".

    Raises:
        ValueError: if they have no seed in common, or not as many prompts.
    """
    first, second = getattr(a, of), getattr(b, of)
    if b.seeds == (None,):
        return crossed_bootstrap(first, second), len(a.seeds)
    common = shared_seeds(a, b)
    if not common:
        raise ValueError(f"{a.label!r} and {b.label!r} have no seed in common; run one of both")
    rows_a = [a.seeds.index(seed) for seed in common]
    rows_b = [b.seeds.index(seed) for seed in common]
    return crossed_bootstrap(first[rows_a], second[rows_b]), len(common)


def shared_seeds(a: Scores, b: Scores) -> list[int | None]:
    """The seeds over which two rows can be paired; a row without any goes with every seed."""
    return [seed for seed in a.seeds if b.seeds == (None,) or seed in b.seeds]


@dataclass(frozen=True, eq=False)
class Runs:
    """All training cells of one row of the ablation, by seed."""

    row: str
    label: str
    records: Mapping[int, Record]

    @property
    def seeds(self) -> tuple[int, ...]:
        """In order."""
        return tuple(sorted(self.records))

    def mean(self, name: str) -> float:
        """Of one of the figures in the results, over the seeds."""
        values = [record["results"][name] for record in self.records.values()]
        return sum(values) / len(values)

    def at(self, step: int | None = None, way: int = 0) -> Scores:
        """Scores of the checkpoints at a step (None: the last), sampled in one of their ways."""
        answers = [_checkpoint(self.records[seed], step)["ways"][way] for seed in self.seeds]
        return scores_of(self.label, answers, self.seeds)

    def steps(self) -> list[int]:
        """Of the checkpoints that all seeds were judged at, rising."""
        sets = [
            {row["step"] for row in record["results"]["checkpoints"]}
            for record in self.records.values()
        ]
        return sorted(set.intersection(*sets))

    def seconds_at(self, step: int) -> float:
        """Training time until a step: the mean over the seeds."""
        times = [_checkpoint(record, step)["seconds"] for record in self.records.values()]
        return sum(times) / len(times)

    def last_within(self, seconds: float) -> int | None:
        """The last judged checkpoint that training reached in so many seconds; None if there is
        none."""
        reached = [step for step in self.steps() if self.seconds_at(step) <= seconds]
        return reached[-1] if reached else None


def _checkpoint(record: Record, step: int | None) -> Mapping[str, Any]:
    rows = record["results"]["checkpoints"]
    if step is None:
        return rows[-1]
    return next(row for row in rows if row["step"] == step)


def collect_runs(records: Mapping[str, Record], rows: Iterable[tuple[str, str]]) -> list[Runs]:
    """The runs of each (row, label) of the ablation that has any."""
    found = []
    for row, label in rows:
        of_row = {
            record["seed"]: record
            for name, record in records.items()
            if record["table"] == "3" and name == ablation_name(row, record["seed"])
        }
        if of_row:
            found.append(Runs(row, label, of_row))
    return found


def time_budget(runs: Sequence[Runs]) -> float:
    """Seconds that every row may train for: the quickest row's total, and a hundredth for jitter.

    Only the rows that took as many student samples count: one that was given fewer is no yardstick.
    """
    most = max(run.mean("samples") for run in runs)
    totals = [run.mean("seconds") for run in runs if run.mean("samples") == most]
    return 1.01 * min(totals)
