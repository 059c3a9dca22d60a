"""The compare screen: one prompt, one to eight noises, any columns side by side."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from flowsteer.app.html import escape, note_html, status_html
from flowsteer.app.links import Link
from flowsteer.app.networks import MOST_COLUMNS
from flowsteer.app.requests import MOST_NOISES, CompareRequest, compare_request
from flowsteer.app.screens.base import (
    PLAIN,
    QUICK,
    STREAM,
    Screen,
    buttons,
    checked,
    examples_for,
    prompt_inputs,
    shown_error,
    skip,
)
from flowsteer.app.screens.columns_html import columns_form, columns_text
from flowsteer.app.screens.compare_html import (
    State,
    card_html,
    ending_html,
    progress_html,
)
from flowsteer.app.screens.compare_table import figures_table, wipe_html
from flowsteer.app.snapshots import Comparison
from flowsteer.validation import SEED_LIMIT, check_whole_number

READ_FORM = "(...args) => [...args.slice(0, -1), window.flowsteer.columns()]"
"""Hands the columns form to the server as the last input."""


@dataclass(frozen=True)
class Controls:
    """The components that events read and write."""

    prompt: gr.Textbox
    seed: gr.Number
    noises: gr.Number
    randomise: gr.Checkbox
    start: gr.Button
    stop: gr.Button
    note: gr.HTML
    form: gr.HTML
    examples: gr.Dataset
    status: gr.HTML
    cards: list[gr.HTML]
    wipe: gr.HTML
    table: gr.HTML
    columns: gr.Textbox  # text of a link, not shown
    turn: gr.Number  # not shown


class CompareScreen(Screen):
    """Builds the screen inside a `gr.Blocks` and answers its events."""

    def build(self, page: gr.Blocks, link: gr.Textbox) -> None:
        """Lay out the components and connect the events.

        Args:
            page: to build in.
            link: gets the query of the page's address once it is open.
        """
        self.examples = examples_for(self.studio)
        self._connect(page, self._layout(), link)

    def _layout(self) -> Controls:
        first = self._request(*self.examples[0], 1, None)
        empty = Comparison(first)
        with gr.Column(elem_classes="fs-panel"):
            with gr.Row(elem_classes="fs-inputs fs-inputs-compare"):
                prompt, seed = prompt_inputs(*self.examples[0], "compare")
                noises = gr.Number(
                    1,
                    label="Noises",
                    minimum=1,
                    maximum=MOST_NOISES,
                    step=1,
                    min_width=0,
                    elem_id="compare-noises",
                )
                randomise = gr.Checkbox(
                    False, label="Randomise", min_width=0, elem_classes="fs-check", container=False
                )
                start, stop = buttons("compare", "Generate")
            note = gr.HTML(note_html(()), **PLAIN)
            form = gr.HTML(columns_form(self.studio.choices, first.columns), **PLAIN)
            examples = gr.Dataset(
                label="Examples",
                components=["textbox"],
                samples=[[text] for text, _ in self.examples],
                type="index",
                layout="gallery",
                elem_id="examples",
            )
        status = gr.HTML(status_html("Type a prompt and press Generate."), **PLAIN)
        with gr.Row(elem_classes="fs-board", elem_id="board"):
            texts = self._cards(empty, "empty")
            cards = [gr.HTML(text, **PLAIN, min_width=0) for text in texts]
        with gr.Row(elem_classes="fs-below"):
            wipe = gr.HTML(wipe_html(empty), **PLAIN, min_width=0)
            text = figures_table(empty, self.studio.model, self.studio.has_detector, False)
            table = gr.HTML(text, **PLAIN, min_width=0)
        columns = gr.Textbox(columns_text(first.columns), visible=False)
        turn = gr.Number(0, visible=False)
        return Controls(
            prompt, seed, noises, randomise, start, stop, note, form, examples, status, cards,
            wipe, table, columns, turn,
        )  # fmt: skip

    def _connect(self, page: gr.Blocks, on: Controls, link: gr.Textbox) -> None:
        shown = [on.status, on.note, on.stop, *on.cards, on.wipe, on.table]
        typed = [on.prompt, on.seed, on.noises]
        # one event from click to picture: each costs a tenth of a second between browser and server
        draw: dict[str, Any] = {
            "inputs": [*typed, on.randomise, on.columns],
            "outputs": [on.turn, on.seed, on.columns, *shown],
            "js": READ_FORM,
            **STREAM,
        }
        clicks = [on.start.click, on.prompt.submit, on.seed.submit, on.noises.submit]
        gr.on(clicks, self.draw, **draw)
        on.examples.click(self.pick, on.examples, [on.prompt, on.seed], **QUICK).success(
            self.draw_as_given, **draw
        )
        opened = link.change(
            self.open_link, link, [on.prompt, on.seed, on.noises, on.columns, on.form], **QUICK
        )
        first = draw | {"inputs": [*typed, on.columns, link], "js": None}
        opened.success(self.draw_first, **first)
        on.stop.click(self.ask_stop, None, [on.status, on.stop], **QUICK)
        page.unload(self.leave)

    def pick(self, index: Any) -> tuple[str, int]:
        """Prompt and seed of an example.

        Raises:
            gr.Error: if there is none of this number.
        """
        last = len(self.examples) - 1
        return self.examples[checked(lambda: check_whole_number("example", index, 0, last))]

    def open_link(self, query: Any) -> tuple:
        """What a link says; what it says wrongly or not at all stays, and may be typed already."""
        link, columns = Link.read(query, self.studio.choices), [gr.skip()] * 2
        if link.columns:
            form = columns_form(self.studio.choices, link.columns, True)
            columns = [columns_text(link.columns), form]
        boxes = (link.prompt or None, link.seed, link.noises or None)
        return *(gr.skip() if value is None else value for value in boxes), *columns

    def draw(
        self, prompt: Any, seed: Any, noises: Any, randomise: Any, columns: Any, request: gr.Request
    ) -> Iterator[list]:
        """Check the input, draw a seed if asked for, show that work has begun, stream the cards.

        Ends early when stopped or overtaken.

        Raises:
            gr.Error: one line with value, limit and fix, and whatever ran before goes on; or if the
                line is full, or the model could not be loaded or fails.
        """
        drawn = random.randrange(SEED_LIMIT - MOST_NOISES) if randomise is True else None
        asked = checked(
            lambda: self._request(prompt, seed if drawn is None else drawn, noises, columns)
        )
        visitor = request.session_hash or ""
        turn, waiting = self.turns.begin(visitor), Comparison(asked)
        yield [
            turn,
            gr.skip() if drawn is None else drawn,
            columns_text(asked.columns),
            self.first_status(),
            note_html(()),
            gr.Button(interactive=True),
            *self._cards(waiting, "waiting"),
            wipe_html(waiting),
            self._table(waiting),
        ]
        for shown in self._run(asked, turn, visitor):
            yield [*skip(3), *shown]

    def draw_as_given(
        self, prompt: Any, seed: Any, noises: Any, randomise: Any, columns: Any, request: gr.Request
    ) -> Iterator[list]:
        """`draw` with the seed that stands in its box."""
        yield from self.draw(prompt, seed, noises, False, columns, request)

    def draw_first(
        self, prompt: Any, seed: Any, noises: Any, columns: Any, query: Any, request: gr.Request
    ) -> Iterator[list]:
        """`draw` once the page is open, unless another screen is, or the visitor was quicker."""
        # Gradio empties every output of a generator that ends without a yield
        yield skip(MOST_COLUMNS + 8)
        other = Link.read(query, self.studio.choices).screen not in (None, "compare")
        if not other and not self.turns.has_begun(request.session_hash or ""):
            yield from self.draw(prompt, seed, noises, False, columns, request)

    def _run(self, asked: CompareRequest, turn: int, visitor: str) -> Iterator[list]:
        """Status, note, stop button, cards, wipe and table as they change."""
        # all is sent once more with the first news: the last word of an overtaken run may have come
        # to the page behind the first of this one
        last: Any = Comparison(asked)
        shown: list[str | None] = [None] * (MOST_COLUMNS + 1)
        waits = skip(MOST_COLUMNS + 4)
        try:
            for last in self.follow(
                lambda stop: self.studio.compare(asked, stop), turn, visitor, lambda text: text
            ):
                if isinstance(last, str):
                    yield [last, *waits]
                    last = Comparison(asked)
                    continue
                pieces = [*self._cards(last, "waiting"), self._table(last)]
                news = _changed(shown, pieces)
                status = progress_html(last)
                yield [status, note_html(last.notes), gr.skip(), *news[:-1], gr.skip(), news[-1]]
                shown = list(pieces)
        except Exception as error:
            if not self.overtaken(visitor, turn):
                yield self._ended(status_html("No picture."), last)
            raise shown_error(error, escape) from error
        if not self.overtaken(visitor, turn):
            yield self._ended(ending_html(last), last)

    def _request(self, prompt: Any, seed: Any, noises: Any, columns: Any) -> CompareRequest:
        choices = self.studio.choices
        chosen = choices.default() if columns is None else choices.parse(columns)
        return compare_request(choices, prompt, seed, noises, chosen)

    def _ended(self, status: str, last: Comparison) -> list:
        cards = self._cards(last, "stopped")
        button = gr.Button(interactive=False)
        return [status, note_html(last.notes), button, *cards, gr.skip(), self._table(last)]

    def _table(self, comparison: Comparison) -> str:
        return figures_table(comparison, self.studio.model, self.studio.has_detector)

    def _cards(self, comparison: Comparison, undrawn: State) -> list[str]:
        """All cards, and empty texts up to the most that there can be."""
        texts = [
            card_html(comparison, column, undrawn, self.studio.has_detector)
            for column in comparison.request.columns
        ]
        return texts + [""] * (MOST_COLUMNS - len(texts))


def _changed(old: Sequence[str | None], new: Sequence[str]) -> list:
    """The new texts, where they differ from the old; large pictures are not sent twice."""
    return [gr.skip() if a == b else b for a, b in zip(old, new, strict=True)]
