"""How far a request is: what the worker posts, and the screens show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from PIL import Image

from flowsteer.app.requests import CompareRequest, ScheduleRequest, TrajectoryRequest

if TYPE_CHECKING:
    from flowsteer.app.verdicts import Verdict
    from flowsteer.comparing import Card, Column
    from flowsteer.paths import RecordedPath

Place = tuple[str, int]
"""A column's key and a seed: where a picture stands in a comparison."""


@dataclass(frozen=True)
class Comparison:
    """How far a comparison is.

    Args:
        request: what was asked for.
        cards: finished pictures.
        verdicts: what the detector says of them; empty where there is none.
        distances: relative L2 to the teacher's 28 steps, where these are known.
        references: keys of the columns that are the teacher's 28 steps.
        drawing: what is in work; an empty key for a reference that no column shows, None at the
            end.
        steps_done: of it.
        notes: what the model will not read of the prompt, a sentence each.
    """

    request: CompareRequest
    cards: Mapping[Place, Card] = field(default_factory=dict)
    verdicts: Mapping[Place, Verdict] = field(default_factory=dict)
    distances: Mapping[Place, float] = field(default_factory=dict)
    references: frozenset[str] = frozenset()
    drawing: Place | None = None
    steps_done: int = 0
    notes: tuple[str, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Whether every picture is there, with its distance."""
        return len(self.distances) == len(self.request.columns) * len(self.request.seeds)

    def cards_of(self, column: str) -> list[Card]:
        """A column's pictures so far, in the order of the seeds."""
        places = [(column, seed) for seed in self.request.seeds]
        return [self.cards[place] for place in places if place in self.cards]


@dataclass(frozen=True)
class Trace:
    """One network's path, and what it saw on the way.

    Args:
        column: network and settings.
        path: states and guesses.
        frames: the guess of each call as a picture.
        edges: window edges that a student was taught on; empty for a teacher.
    """

    column: Column
    path: RecordedPath
    frames: tuple[Image.Image, ...]
    edges: tuple[float, ...] = ()


@dataclass(frozen=True)
class Trajectories:
    """Paths that are ready, by their column's key; the first column is the teacher's."""

    request: TrajectoryRequest
    traces: Mapping[str, Trace] = field(default_factory=dict)
    drawing: str | None = None
    steps_done: int = 0
    notes: tuple[str, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Whether every path is there."""
        return len(self.traces) == len(self.request.columns)


@dataclass(frozen=True)
class Schedules:
    """The teacher's pictures by grid, and how far each is from the 28-step picture."""

    request: ScheduleRequest
    pictures: Mapping[str, Image.Image] = field(default_factory=dict)
    distances: Mapping[str, float] = field(default_factory=dict)
    steps_done: int = 0
    notes: tuple[str, ...] = ()
