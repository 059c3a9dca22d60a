"""The blind test: one picture took 56 network calls, the other 4. Which is which?"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from flowsteer.app.html import empty_html, escape, hint, image_html, status_html
from flowsteer.app.requests import CompareRequest
from flowsteer.app.screens.base import (
    GENERAL_EXAMPLES,
    PLAIN,
    STREAM,
    Screen,
    shown_error,
    skip,
)
from flowsteer.app.snapshots import Comparison
from flowsteer.app.studio import Studio
from flowsteer.app.turns import Latest
from flowsteer.measure.bootstrap import wilson_interval
from flowsteer.validation import SEED_LIMIT

INTRO = """<p class="fs-intro">Two pictures of one prompt from one noise. One took the teacher's
full 56 network calls, the other a student's few. Say which one took more. If you cannot tell, you
are right half of the time.</p>"""
NO_STUDENT = empty_html(
    "No student is loaded",
    "The blind test shows a student beside its teacher: start the app with --student.",
)
FRESH = empty_html("No pair yet", "Press New pair: two pictures are drawn, in an order by chance.")
INTERVAL = "Wilson's 95% interval of your share of right answers; 50% is guessing."


MOST_PAIRS, MOST_SCORES = 64, 1000


@dataclass(frozen=True)
class Pair:
    """Two pictures whose order only the server knows.

    Args:
        done: the comparison of the two columns, the teacher's first.
        swapped: whether the student's picture is on the left.
    """

    done: Comparison
    swapped: bool

    @property
    def full_side(self) -> str:
        """Where the teacher's picture is."""
        return "right" if self.swapped else "left"


class BlindScreen(Screen):
    """Builds the screen inside a `gr.Blocks` and answers its events."""

    def __init__(self, studio: Studio):
        super().__init__(studio)
        # on the server, since the page must not know the answer
        self.pairs: Latest[Pair] = Latest(MOST_PAIRS)
        self.scores: Latest[tuple[int, int]] = Latest(MOST_SCORES)

    def build(self, page: gr.Blocks, link: gr.Textbox) -> None:
        """Lay out the components and connect the events."""
        gr.HTML(INTRO, **PLAIN)
        if not self.studio.choices.students:
            gr.HTML(NO_STUDENT, **PLAIN)
            return
        with gr.Row(elem_classes="fs-votes"):
            fresh = gr.Button("New pair", variant="primary", min_width=0, elem_id="blind-new")
            left = gr.Button("Left took more calls", interactive=False, min_width=0)
            right = gr.Button("Right took more calls", interactive=False, min_width=0)
        status = gr.HTML(status_html("Press New pair."), **PLAIN)
        view = gr.HTML(FRESH, **PLAIN, elem_id="blind-view")
        score = gr.HTML(score_html(0, 0), **PLAIN, elem_id="blind-score")
        shown = [status, view, left, right]
        self.connect(page, [fresh.click], self.begin, self.run, [], shown)
        for button, cast in ((left, self.vote_left), (right, self.vote_right)):
            button.click(cast, None, [*shown, score], **STREAM)

    def begin(self, request: gr.Request) -> tuple:
        """Take the old pair away."""
        visitor = request.session_hash or ""
        turn = self.turns.begin(visitor)
        self.pairs.take(visitor)
        closed = gr.Button(interactive=False)
        return turn, self.first_status(), pair_html(None), closed, closed

    def run(self, turn: Any, request: gr.Request) -> Iterator[list]:
        """Draw a pair of a prompt and a seed by chance.

        Raises:
            gr.Error: if the line is full, or the model could not be loaded or fails.
        """
        visitor = request.session_hash or ""
        asked, last = self._draw_request(), None
        yield skip(4)
        try:
            for last in self.follow(
                lambda stop: self.studio.compare(asked, stop), turn, visitor, lambda text: text
            ):
                if isinstance(last, str):
                    yield [last, *skip(3)]
                    continue
                # no word of which is in work: the order tells which picture is which
                yield [status_html("Drawing two pictures.", "", _share(last)), *skip(3)]
        except Exception as error:
            if not self.overtaken(visitor, turn):
                yield [status_html("No pair."), FRESH, *skip(2)]
            raise shown_error(error, escape) from error
        if isinstance(last, Comparison) and len(last.cards) == 2:
            pair = Pair(last, random.random() < 0.5)
            self.pairs.put(visitor, pair)
            opened = gr.Button(interactive=True)
            question = status_html("Which one took more network calls?", f"“{asked.prompt}”")
            yield [question, pair_html(pair), opened, opened]

    def vote_left(self, request: gr.Request) -> list[Any]:
        """The visitor takes the left picture for the one of more calls."""
        return self._vote(request.session_hash or "", "left")

    def vote_right(self, request: gr.Request) -> list[Any]:
        """The visitor takes the right picture for the one of more calls."""
        return self._vote(request.session_hash or "", "right")

    def _vote(self, visitor: str, side: str) -> list[Any]:
        """The answer and the new score. Without an open pair nothing changes."""
        pair = self.pairs.take(visitor)
        if pair is None:
            return skip(5)
        right, total = self.scores.take(visitor) or (0, 0)
        correct = side == pair.full_side
        right, total = right + correct, total + 1
        self.scores.put(visitor, (right, total))
        word, closed = "Correct" if correct else "Wrong", gr.Button(interactive=False)
        prompt, columns = pair.done.request.prompt, pair.done.request.columns
        teacher, student = (pair.done.cards_of(column.key)[0] for column in columns)
        told = status_html(
            f"{word}: the {pair.full_side} one took {teacher.nfe} calls, the other {student.nfe}.",
            f"“{prompt}”",
        )
        return [told, pair_html(pair, revealed=True), closed, closed, score_html(right, total)]

    def _draw_request(self) -> CompareRequest:
        choices = self.studio.choices
        student = choices.students[0]
        columns = (
            self.studio.reference_column(),
            choices.column(student.key, student.steps, guidance=1.0),
        )
        prompt = random.choice(GENERAL_EXAMPLES)[0]
        if self.studio.has_detector:
            from flowsteer.emoji.prompts import load_prompts

            prompt = random.choice(load_prompts("dev")).text
        return CompareRequest(prompt, (random.randrange(SEED_LIMIT),), columns)


def pair_html(pair: Pair | None, revealed: bool = False) -> str:
    """Two pictures without a name, or with it once the vote is cast; two places without a pair."""
    if pair is None:
        blank = '<div class="fs-picture fs-blank" data-busy=""><span>Drawing</span></div>'
        return f'<div class="fs-pair">{_side("Left", blank, "")}{_side("Right", blank, "")}</div>'
    cards = [pair.done.cards_of(column.key)[0] for column in pair.done.request.columns]
    if pair.swapped:
        cards.reverse()
    sides = []
    for name, card in zip(("Left", "Right"), cards, strict=True):
        alt = f"{name} picture: {pair.done.request.prompt}"
        body = f'<div class="fs-picture">{image_html(card.image, alt)}</div>'
        told = f"{card.column.title}, {card.nfe} calls" if revealed else ""
        sides.append(_side(name, body, told))
    return f'<div class="fs-pair">{"".join(sides)}</div>'


def _side(name: str, body: str, told: str) -> str:
    text = escape(told) or "&nbsp;"
    return (
        f'<article class="fs-card fs-strip" data-side="{name.lower()}"><header><h3>{name}</h3>'
        f"</header>{body}<p>{text}</p></article>"
    )


def score_html(right: int, total: int) -> str:
    """The visitor's score with its interval."""
    if total == 0:
        return '<p class="fs-score">Your score: no votes yet.</p>'
    share = wilson_interval(right, total)
    return (
        f'<p class="fs-score">Your score: <strong>{right} of {total}</strong>,'
        f" {share.mean:.0%} {hint(f'[{share.low:.0%}, {share.high:.0%}]', INTERVAL)}</p>"
    )


def _share(comparison: Comparison) -> float:
    """How far both pictures are together, in an order that tells nothing."""
    calls = sum(card.nfe for card in comparison.cards.values()) + comparison.steps_done
    return min(calls / 40, 1.0)
