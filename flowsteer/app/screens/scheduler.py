"""The scheduler screen: stock and rectified time grid, step by step, and the pictures they give."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import gradio as gr

from flowsteer.app.html import (
    escape,
    hint,
    image_html,
    note_html,
    short_sigmas,
    status_html,
    subject,
    table_html,
    ticks_html,
)
from flowsteer.app.requests import (
    check_grid_numbers,
    schedule_request,
)
from flowsteer.app.screens.base import (
    PLAIN,
    QUICK,
    Screen,
    buttons,
    checked,
    examples_for,
    prompt_inputs,
    shown_error,
    skip,
)
from flowsteer.app.snapshots import Schedules
from flowsteer.flow.grids import GRIDS

INTRO = """<p class="fs-intro">Where should N steps land? The stock scheduler of diffusers spaces
its points first and appends the end, 0, afterwards, so that the last call has almost nothing left
to do. The rectified one puts 0 in first. Move the sliders and see what each step covers.</p>"""
SHIFT = "Moves the steps towards noise, where more is decided. SD3 uses 3; 1 spaces them evenly."
LAST = "How much of the path from noise to picture the last network call covers."
READY = "Both grids for the shift and N above."
MOST_SLIDER_STEPS = 28


class SchedulerScreen(Screen):
    """Builds the screen inside a `gr.Blocks` and answers its events."""

    def build(self, page: gr.Blocks, link: gr.Textbox) -> None:
        """Lay out the components and connect the events."""
        gr.HTML(INTRO, **PLAIN)
        with gr.Column(elem_classes="fs-panel"):
            with gr.Row(elem_classes="fs-inputs fs-inputs-sliders"):
                shift = gr.Slider(
                    1.0,
                    8.0,
                    3.0,
                    step=0.1,
                    label="Shift",
                    info=SHIFT,
                    min_width=0,
                    elem_id="scheduler-shift",
                )
                steps = gr.Slider(
                    1,
                    MOST_SLIDER_STEPS,
                    4,
                    step=1,
                    label="Steps N",
                    info="Network steps from noise to picture.",
                    min_width=0,
                    elem_id="scheduler-steps",
                )
            with gr.Row(elem_classes="fs-inputs fs-inputs-short"):
                prompt, seed = prompt_inputs(*examples_for(self.studio)[0], "scheduler")
                start, stop = buttons("scheduler", "Draw both")
            note = gr.HTML(note_html(()), **PLAIN)
        status = gr.HTML(status_html(READY), **PLAIN)
        grids = gr.HTML(grids_html(3.0, 4), **PLAIN, elem_id="scheduler-grids")
        pictures = gr.HTML(pictures_html(None), **PLAIN, elem_id="scheduler-pictures")
        for slider in (shift, steps):
            slider.change(show_grids, [shift, steps], [status, grids], **QUICK)
        shown = [status, note, stop, pictures]
        inputs = [prompt, seed, shift, steps]
        asked = [start.click, prompt.submit, seed.submit]
        self.connect(page, asked, self.begin, self.run, inputs, shown)
        stop.click(self.ask_stop, None, [status, stop], **QUICK)

    def begin(self, prompt: Any, seed: Any, shift: Any, steps: Any, request: gr.Request) -> tuple:
        """Check the input and show that work has begun.

        Raises:
            gr.Error: one line with value, limit and fix.
        """
        checked(lambda: schedule_request(self.studio.choices, prompt, seed, shift, steps))
        turn = self.turns.begin(request.session_hash or "")
        return turn, self.first_status(), note_html(()), gr.Button(interactive=True), gr.skip()

    def run(
        self, prompt: Any, seed: Any, shift: Any, steps: Any, turn: Any, request: gr.Request
    ) -> Iterator[list]:
        """Draw the teacher's picture on both grids.

        Raises:
            gr.Error: if the line is full, or the model could not be loaded or fails.
        """
        visitor = request.session_hash or ""
        asked = checked(lambda: schedule_request(self.studio.choices, prompt, seed, shift, steps))
        what = subject(asked.prompt, (asked.seed,))
        last: Any = None
        yield skip(4)
        try:
            for last in self.follow(
                lambda stop: self.studio.schedule(asked, stop), turn, visitor, lambda text: text
            ):
                if isinstance(last, str):
                    yield [last, *skip(3)]
                    continue
                share = (len(last.pictures) + last.steps_done / asked.steps) / len(GRIDS)
                headline = f"{len(last.pictures)} of {len(GRIDS)} pictures."
                yield [
                    status_html(headline, what, min(share, 1.0)),
                    note_html(last.notes),
                    gr.skip(),
                    pictures_html(last),
                ]
            if self.overtaken(visitor, turn):
                return
            done = isinstance(last, Schedules) and len(last.distances) == len(GRIDS)
            ending = status_html("Both pictures are ready." if done else "Stopped.", what)
            yield [ending, gr.skip(), gr.Button(interactive=False), gr.skip()]
        except Exception as error:
            if not self.overtaken(visitor, turn):
                yield [
                    status_html("No picture."),
                    gr.skip(),
                    gr.Button(interactive=False),
                    gr.skip(),
                ]
            raise shown_error(error, escape) from error


def show_grids(shift: Any, steps: Any) -> tuple[Any, Any]:
    """The status line and both grids for what the sliders, or the boxes beside them, say."""
    try:
        numbers = check_grid_numbers(shift, steps)
    except ValueError as error:
        return status_html(str(error)), gr.skip()
    return status_html(READY), grids_html(*numbers)


def grids_html(shift: float, steps: int) -> str:
    """Both grids as lines and numbers, the size of every step, and what the last call covers."""
    grids = {name: make(steps, shift).tolist() for name, make in GRIDS.items()}
    cards = "".join(_grid_html(name, sigmas) for name, sigmas in grids.items())
    head = ["Call", "Stock: from", "to", "covers", "Rectified: from", "to", "covers"]
    rows = []
    for call in range(steps):
        row = [str(call + 1)]
        for sigmas in grids.values():
            hi, lo = sigmas[call], sigmas[call + 1]
            row += [f"{hi:.4f}", f"{lo:.4f}", f"{100 * (hi - lo):.1f}%"]
        rows.append(row)
    table = table_html(f"Steps for shift {shift:g} and N = {steps}", head, rows)
    return f'<section class="fs-grids" aria-label="Both grids"><div>{cards}</div>{table}</section>'


def _grid_html(name: str, sigmas: Sequence[float]) -> str:
    sizes = [hi - lo for hi, lo in zip(sigmas, sigmas[1:], strict=False)]
    parts = "".join(
        f'<b style="width:{100 * size:.3f}%" title="call {index + 1} covers {size:.1%}"></b>'
        for index, size in enumerate(sizes)
    )
    return (
        f'<article class="fs-grid" data-grid="{name}"><h2>{name.capitalize()}</h2>'
        f'<div class="fs-parts" aria-hidden="true">{parts}</div>{ticks_html(sigmas)}'
        f'<p class="fs-sigma-list">{escape(short_sigmas(sigmas))}</p>'
        f'<p class="fs-last"><strong>{sizes[-1]:.1%}</strong>'
        f" {hint('is left to the last call', LAST)}</p></article>"
    )


def pictures_html(shown: Schedules | None) -> str:
    """What the teacher draws on both grids; places for it before."""
    cards = []
    for name in GRIDS:
        picture = shown.pictures.get(name) if shown else None
        if shown is None or picture is None:
            body = '<div class="fs-picture fs-blank"><span>Press Draw both</span></div>'
            if shown is not None:
                body = '<div class="fs-picture fs-blank" data-busy=""><span>Drawing</span></div>'
            figure = "–"
        else:
            request = shown.request
            alt = f"Teacher on the {name} grid, {request.steps} steps: {request.prompt}"
            body = f'<div class="fs-picture">{image_html(picture, alt)}</div>'
            known = shown.distances.get(name)
            figure = "measuring" if known is None else f"{known:.3f}"
        cards.append(
            f'<article class="fs-card fs-strip" data-picture="{name}"><header><h3>'
            f"<span>Guided teacher</span> {name} grid</h3></header>{body}"
            f"<p>Distance to 28 steps: <strong>{figure}</strong></p></article>"
        )
    return f'<div class="fs-strips">{"".join(cards)}</div>'
