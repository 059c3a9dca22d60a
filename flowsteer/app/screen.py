"""The compare screen: one prompt, one noise, teacher and student side by side."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from flowsteer.app.comparator import Comparator, Snapshot
from flowsteer.app.turns import Turns
from flowsteer.app.views import (
    CardView,
    State,
    card_html,
    ending_html,
    escape,
    note_html,
    progress_html,
    role_of,
    status_html,
)
from flowsteer.validation import SEED_LIMIT, check_prompt, check_seed

logger = logging.getLogger(__name__)

MODEL_QUEUE = "model"  # one queue for every event that needs the networks
EXAMPLES = (
    ("a 3d koala left of a flat pizza on a pink background", 0),
    ("three strawberries on a blue background", 0),
    ("a small rocket in the top left", 0),
    ("two twemoji cats on a yellow background", 0),
    ("a noto fox and a flat avocado", 0),
    ("🐨 on blue", 0),
)
HERE = Path(__file__).parent
PLAIN: dict[str, Any] = {"js_on_load": None, "apply_default_css": False}  # for our own HTML


@dataclass(frozen=True)
class Controls:
    """The components that events read and write."""

    prompt: gr.Textbox
    seed: gr.Number
    randomise: gr.Checkbox
    generate: gr.Button
    stop: gr.Button
    note: gr.HTML
    examples: gr.Dataset
    status: gr.HTML
    cards: list[gr.HTML]
    turn: gr.Number
    first_turn: gr.Number


class CompareScreen:
    """Builds the screen inside a `gr.Blocks` and answers its events.

    Args:
        comparator: what draws.
    """

    def __init__(self, comparator: Comparator):
        self.comparator = comparator
        self.columns = comparator.columns()
        self.turns = Turns()

    def build(self, page: gr.Blocks) -> None:
        """Lay out the components and connect the events."""
        gr.HTML((HERE / "intro.html").read_text(encoding="utf-8"), **PLAIN)
        controls = self._layout()
        gr.HTML((HERE / "terms.html").read_text(encoding="utf-8"), **PLAIN)
        self._connect(page, controls)

    def _layout(self) -> Controls:
        with gr.Column(elem_classes="fs-panel"):
            with gr.Row(elem_classes="fs-inputs"):
                prompt, seed, randomise, generate, stop = _inputs(*EXAMPLES[0])
            note = gr.HTML(note_html(()), **PLAIN)
            examples = gr.Dataset(
                label="Examples",
                components=["textbox"],
                samples=[[text] for text, _ in EXAMPLES],
                type="index",
                layout="gallery",
                elem_id="examples",
            )
        status = gr.HTML(status_html("Type a prompt and press Generate."), **PLAIN)
        with gr.Row(elem_classes="fs-board", elem_id="board"):
            empty = self._cards("empty", "", Snapshot())
            cards = [gr.HTML(text, **PLAIN, min_width=0) for text in empty]
        turns = [gr.Number(0, visible=False) for _ in range(2)]
        return Controls(
            prompt, seed, randomise, generate, stop, note, examples, status, cards, *turns
        )

    def _connect(self, page: gr.Blocks, on: Controls) -> None:
        quick: dict[str, Any] = {
            "queue": False,
            "show_progress": "hidden",
            "api_visibility": "private",
            "trigger_mode": "multiple",
        }
        begin: dict[str, Any] = {  # queued, since only there Gradio shows errors to the visitor
            "inputs": [on.prompt, on.seed, on.randomise],
            "outputs": [on.turn, on.seed, on.status, on.note, on.stop, *on.cards],
            "concurrency_limit": None,
            **(quick | {"queue": True}),
        }
        run: dict[str, Any] = {
            "fn": self.run,
            "inputs": [on.prompt, on.seed, on.turn],
            "outputs": [on.status, on.note, on.stop, *on.cards],
            "concurrency_id": MODEL_QUEUE,
            "concurrency_limit": 1,
            **(quick | {"queue": True}),
        }
        typed = [on.generate.click, on.prompt.submit, on.seed.submit]
        gr.on(typed, self.begin, **begin).success(**run)
        # with the seed that the example names, randomise or not
        first = begin | {"inputs": None, "outputs": [on.first_turn, *begin["outputs"][2:]]}
        page.load(self.begin_first, **first).success(
            **(run | {"fn": self.run_first, "inputs": on.first_turn})
        )
        picked = on.examples.click(self.pick, on.examples, [on.prompt, on.seed], **quick)
        picked.success(self.begin_as_given, **begin).success(**run)
        on.stop.click(self.stop, None, [on.status, on.stop], **quick)
        page.unload(self.leave)

    def pick(self, index: int) -> tuple[str, int]:
        """Prompt and seed of an example."""
        return EXAMPLES[index]

    def begin(self, prompt: Any, seed: Any, randomise: Any, request: gr.Request) -> tuple:
        """Check the input, draw a seed if asked for, and show at once that work has begun.

        Raises:
            gr.Error: one line with value, limit and fix; whatever ran before goes on.
        """
        drawn = random.randrange(SEED_LIMIT) if randomise else None
        prompt, seed = checked(prompt, seed if drawn is None else drawn)
        turn = self.turns.begin(request.session_hash or "")
        detail = "" if self.comparator.is_loaded else "It is loading; this happens once."
        return (
            turn,
            gr.skip() if drawn is None else drawn,
            status_html("Waiting for the model.", detail),
            note_html(()),
            gr.Button(interactive=True),
            *self._cards("waiting", prompt, Snapshot()),
        )

    def begin_as_given(self, prompt: Any, seed: Any, randomise: Any, request: gr.Request) -> tuple:
        """`begin` with the seed that stands in its box."""
        return self.begin(prompt, seed, False, request)

    def begin_first(self, request: gr.Request) -> tuple | dict:
        """`begin` with the first example, unless the visitor was quicker."""
        if self.turns.has_begun(request.session_hash or ""):
            return gr.skip()
        turn, _, *shown = self.begin(*EXAMPLES[0], False, request)
        return turn, *shown

    def run_first(self, turn: Any, request: gr.Request) -> Iterator[list]:
        """`run` with the first example, whatever the visitor may be typing."""
        yield from self.run(*EXAMPLES[0], turn, request)

    def run(self, prompt: Any, seed: Any, turn: Any, request: gr.Request) -> Iterator[list]:
        """Draw and stream the cards; ends early when stopped or overtaken.

        Raises:
            gr.Error: if the model could not be loaded or fails.
        """
        prompt, seed = checked(prompt, seed)
        visitor = request.session_hash or ""

        def overtaken() -> bool:
            return not self.turns.is_current(visitor, turn)

        def should_stop() -> bool:
            return overtaken() or self.turns.is_stopped(visitor)

        # Gradio empties every output of a generator that ends without a yield
        yield [gr.skip()] * (len(self.columns) + 3)
        last, shown = Snapshot(), [""] * len(self.columns)
        try:
            for last in self.comparator.draw(prompt, seed, should_stop):
                if overtaken():
                    return
                cards = self._cards("waiting", prompt, last)
                status = progress_html(self.columns, last, prompt, seed)
                yield [status, note_html(last.notes), gr.skip(), *_changed(shown, cards)]
                shown = cards
        except Exception as error:
            yield self._ended(status_html("No picture."), prompt, last)
            raise shown_error(error, escape) from error
        if not overtaken():
            yield self._ended(ending_html(self.columns, last, prompt, seed), prompt, last)

    def stop(self, request: gr.Request) -> tuple:
        """Ask the visitor's running request to end; it does so after the step in work."""
        self.turns.stop(request.session_hash or "")
        return status_html("Stopping."), gr.Button(interactive=False)

    def leave(self, request: gr.Request) -> None:
        """The visitor has closed the page: stop drawing for them."""
        self.turns.forget(request.session_hash or "")

    def _ended(self, status: str, prompt: str, last: Snapshot) -> list:
        cards = self._cards("stopped", prompt, last)
        return [status, note_html(last.notes), gr.Button(interactive=False), *cards]

    def _cards(self, undrawn: State, prompt: str, snapshot: Snapshot) -> list[str]:
        """All cards; those without a picture are in the state `undrawn` or being drawn."""
        views = []
        for index, column in enumerate(self.columns):
            card = snapshot.cards.get(column.key)
            state: State = "done" if card else undrawn
            if undrawn == "waiting" and snapshot.drawing == column.key:
                state = "drawing"
            role = role_of(column, index)
            views.append(CardView(column, role, state, card, snapshot.steps_done, prompt))
        return [card_html(view) for view in views]


def _inputs(prompt: str, seed: int) -> tuple:
    """Prompt, seed and buttons in one row."""
    prompt_box = gr.Textbox(
        prompt,
        label="Prompt",
        placeholder="What to draw, such as: a 3d koala on a blue background",
        max_lines=3,
        scale=6,
        min_width=240,
        elem_id="prompt",
    )
    seed_box = gr.Number(seed, label="Seed", scale=1, min_width=120, elem_id="seed")
    randomise = gr.Checkbox(
        False, label="Randomise", scale=0, min_width=120, elem_id="randomise", container=False
    )
    generate = gr.Button("Generate", variant="primary", scale=0, min_width=120, elem_id="generate")
    stop = gr.Button("Stop", interactive=False, scale=0, min_width=90, elem_id="stop")
    return prompt_box, seed_box, randomise, generate, stop


def _changed(old: Sequence[str], new: Sequence[str]) -> list:
    """The new texts, where they differ from the old; large pictures are not sent twice."""
    return [gr.skip() if a == b else b for a, b in zip(old, new, strict=True)]


def checked(prompt: Any, seed: Any) -> tuple[str, int]:
    """Prompt and seed as they may be used.

    Raises:
        gr.Error: one line with value, limit and fix, safe to show as HTML.
    """
    if isinstance(seed, float) and seed.is_integer():  # numbers from a browser
        seed = int(seed)
    try:
        return check_prompt(prompt), check_seed(seed)
    except ValueError as error:
        raise shown_error(error, escape) from error


def shown_error(error: BaseException, quote: Callable[[str], str] = str) -> gr.Error:
    """What a visitor is told of an error: a `ValueError` in full, of others the kind."""
    if isinstance(error, ValueError):
        return gr.Error(quote(str(error)), print_exception=False)
    logger.error("drawing failed", exc_info=error)
    kind = type(error).__name__
    return gr.Error(f"Drawing failed ({kind}); the server's log says why.", print_exception=False)
