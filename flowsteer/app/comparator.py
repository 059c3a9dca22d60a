"""Draws the cards of a comparison on one worker thread and tells how far it is."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flowsteer.comparing import Card, Column, PipelineSet


@dataclass(frozen=True)
class Snapshot:
    """How far a comparison is.

    Args:
        cards: finished cards by their column's key, distances filled in where they are known.
        drawing: key of the column in work; None when the comparison has ended.
        steps_done: of that column.
        notes: what the model will not read of the prompt, a sentence each.
    """

    cards: Mapping[str, Card] = field(default_factory=dict)
    drawing: str | None = None
    steps_done: int = 0
    notes: tuple[str, ...] = ()


class Comparator:
    """One teacher and one student, loaded in the background and used by one request at a time.

    Everything that touches the networks runs on a single thread of its own, so requests cannot
    disturb each other, and the page is there while the weights still load.

    Args:
        model: bundled name, folder or hub id, as in `load_pipeline`.
        student: bundled name or folder; "none" leaves the student's column out.
        device: as in `load_pipeline`.
    """

    def __init__(self, model: str = "emoji", student: str = "flowsteer", device: str | None = None):
        self.model = model
        self.student = student
        self.device = device
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="flowsteer-model")
        self._closed = threading.Event()
        self._loaded: Future[PipelineSet] = self._worker.submit(self._load)

    @property
    def is_loaded(self) -> bool:
        """Whether the weights are there, or loading them has failed."""
        return self._loaded.done()

    def pipelines(self) -> PipelineSet:
        """The loaded pipelines; waits for them.

        Raises:
            ValueError: if the model or the student cannot be loaded.
        """
        return self._loaded.result()

    def close(self) -> None:
        """Stop what runs and drop what waits."""
        self._closed.set()
        self._worker.shutdown(wait=False, cancel_futures=True)

    def columns(self) -> list[Column]:
        """The columns in the order of the page; the first is the reference."""
        from flowsteer.comparing import columns_for

        return columns_for(self.student)

    def draw(
        self, prompt: str, seed: int, should_stop: Callable[[], bool] = lambda: False
    ) -> Iterator[Snapshot]:
        """Snapshots whenever something has changed; the last has every card, unless stopped.

        The cheapest columns come first. Distances appear once the reference is drawn.

        Args:
            prompt: what to draw.
            seed: of the noise that all columns share.
            should_stop: asked after every network step.

        Raises:
            ValueError: if the prompt or the seed is out of range, or loading has failed.
        """
        news: queue.SimpleQueue[Snapshot | BaseException | None] = queue.SimpleQueue()
        abandoned = threading.Event()

        def stop() -> bool:
            return abandoned.is_set() or self._closed.is_set() or should_stop()

        self._worker.submit(self._work, prompt, seed, stop, news.put)
        try:
            ended = False
            while not ended:
                items = _drain(news)
                if snapshots := [item for item in items if isinstance(item, Snapshot)]:
                    yield snapshots[-1]
                for item in items:
                    if isinstance(item, BaseException):
                        raise item
                ended = None in items
        finally:
            abandoned.set()

    def _load(self) -> PipelineSet:
        from flowsteer.comparing import PipelineSet
        from flowsteer.loading import load_pipeline

        pipelines = PipelineSet(load_pipeline(self.model, device=self.device))
        pipelines.pipeline(self.student)
        return pipelines

    def _work(
        self,
        prompt: str,
        seed: int,
        should_stop: Callable[[], bool],
        post: Callable[[Snapshot | BaseException | None], None],
    ) -> None:
        try:
            if not should_stop():
                self._draw_all(prompt, seed, should_stop, post)
        except Exception as error:  # whatever it is belongs to the thread that asked
            post(error)
        finally:
            post(None)

    def _draw_all(
        self,
        prompt: str,
        seed: int,
        should_stop: Callable[[], bool],
        post: Callable[[Snapshot | BaseException | None], None],
    ) -> None:
        from flowsteer.app.notes import prompt_notes
        from flowsteer.comparing import compare

        pipelines = self.pipelines()
        notes = tuple(prompt_notes(pipelines.teacher, prompt))
        columns = self.columns()
        order = sorted(columns, key=_cost)
        keys = [column.key for column in order]
        cards: dict[str, Card] = {}
        steps = 0

        def snapshot() -> Snapshot:
            drawing = keys[len(cards)] if len(cards) < len(keys) else None
            return Snapshot(_with_distances(cards, columns[0].key), drawing, steps, notes)

        def after_step() -> bool:
            nonlocal steps
            steps += 1
            post(snapshot())
            return should_stop()

        post(snapshot())
        for card in compare(pipelines, prompt, seed, order, should_stop=after_step):
            cards[card.column.key] = card
            steps = 0
            post(snapshot())


def _cost(column: Column) -> tuple[int, bool]:
    """Network calls of a column, students before teachers of the same cost."""
    return planned_nfe(column), column.settings.student is None


def planned_nfe(column: Column) -> int:
    """Network calls that a column will take, known before the model is loaded."""
    settings = column.settings
    guided = settings.student is None and settings.guidance_scale != 1.0
    return (settings.num_inference_steps or 0) * (2 if guided else 1)


def _with_distances(cards: Mapping[str, Card], reference: str) -> dict[str, Card]:
    """Cards with their distance to the reference, where that is drawn already."""
    from flowsteer.measure.distances import relative_l2

    if reference not in cards:
        return {key: replace(card, distance=None) for key, card in cards.items()}
    target = cards[reference].latents[None]
    return {
        key: replace(
            card,
            distance=None if key == reference else relative_l2(card.latents[None], target).item(),
        )
        for key, card in cards.items()
    }


def _drain(news: queue.SimpleQueue) -> list[Snapshot | BaseException | None]:
    """Waits for one item and takes all that have piled up behind it."""
    items = [news.get()]
    while not news.empty():
        items.append(news.get())
    return items
