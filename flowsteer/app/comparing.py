"""One comparison at work: card after card, then the distances to the reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from flowsteer.app.desk import ShouldStop
from flowsteer.app.requests import CompareRequest
from flowsteer.app.snapshots import Comparison

if TYPE_CHECKING:
    from flowsteer.app.studio import Studio
    from flowsteer.comparing import Column

Post = Callable[[Any], None]


class Comparing:
    """One comparison at work on the desk's thread.

    Args:
        studio: what draws.
        request: what is drawn.
        post: gets a snapshot whenever something has changed.
        should_stop: asked after every step.
    """

    def __init__(
        self, studio: Studio, request: CompareRequest, post: Post, should_stop: ShouldStop
    ):
        from flowsteer.comparing import is_reference

        self.studio, self.request = studio, request
        self.post_snapshot, self.should_stop = post, should_stop
        teacher = studio.pipelines().teacher
        self.notes = studio.notes(request.prompt)
        self.cards: dict[tuple[str, int], Any] = {}
        self.verdicts: dict[tuple[str, int], Any] = {}
        self.distances: dict[tuple[str, int], float] = {}
        self.drawing: tuple[str, int] | None = None
        self.steps = 0
        self.references = {c.key for c in request.columns if is_reference(c, teacher)}

    def run(self) -> None:
        """Every card, the cheapest first, then the distances that are still missing."""
        from flowsteer.comparing import prepare_column
        from flowsteer.generation import GenerationStopped

        pipelines = self.studio.pipelines()
        for column in self.request.columns:
            prepare_column(pipelines, column)  # what does not fit must fail before the first call
        try:
            for column in sorted(self.request.columns, key=_cost):
                for seed in self.request.seeds:
                    self._draw(column, seed)
            for seed in self.request.seeds:
                self._measure_rest(seed)
        except GenerationStopped:
            return
        self.drawing = None
        self._post()

    def _draw(self, column: Column, seed: int) -> None:
        from flowsteer.app import gpu

        place = self.drawing = (column.key, seed)
        self.steps = 0
        self._post()
        card = gpu.draw(
            self.studio.number, self.request.prompt, column, seed, gpu.callback(self._after_step)
        )
        self.cards[place] = card
        if self.studio.judge is not None:
            self.verdicts[place] = self.studio.judge.look(self.request.prompt, card.image)
        if column.key in self.references:
            self.studio.keep_reference(self.request.prompt, seed, card.latents)
            self._measure(seed, card.latents)

    def _measure_rest(self, seed: int) -> None:
        """Distances still missing, to a reference that is drawn now if it must be."""
        missing = {p for p in self.cards if p[1] == seed} - self.distances.keys()
        if missing:
            self.drawing, self.steps = ("", seed), 0
            self._post()
            target = self.studio.reference(self.request.prompt, seed, self._after_step)
            self._measure(seed, target)

    def _measure(self, seed: int, target: Any) -> None:
        """Distances of all cards from this noise to the teacher's 28 steps."""
        from flowsteer.app import gpu

        for place, card in self.cards.items():
            if place[1] == seed:
                self.distances[place] = gpu.distance(card.latents, target)

    def _after_step(self) -> bool:
        self.steps += 1
        self._post()
        return self.should_stop()

    def _post(self) -> None:
        self.post_snapshot(
            Comparison(
                request=self.request,
                cards=dict(self.cards),
                verdicts=dict(self.verdicts),
                distances=dict(self.distances),
                references=frozenset(self.references),
                drawing=self.drawing,
                steps_done=self.steps,
                notes=self.notes,
            )
        )


def _cost(column: Column) -> tuple[int, bool]:
    """Network calls of a column, students before teachers of the same cost."""
    from flowsteer.app.requests import planned_nfe

    return planned_nfe(column), column.settings.student is None
