"""The trajectory screen: what teacher and students see on the way, and where they go."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr

from flowsteer.app.html import empty_html, escape, note_html, status_html, subject
from flowsteer.app.networks import TEACHER
from flowsteer.app.requests import trajectory_request
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
from flowsteer.app.screens.trajectory_html import trajectory_view
from flowsteer.app.snapshots import Trajectories

INTRO = """<p class="fs-intro">Sampling follows a path from noise to picture. Press Follow, then
move the slider: at every step you see the picture that each network is heading for.</p>"""
EMPTY = empty_html(
    "No path yet",
    "The teacher takes 28 guided steps, a student a few. Both start from the same noise, so you can"
    " watch where a student's path leaves the teacher's, and whether it comes back.",
)


class TrajectoryScreen(Screen):
    """Builds the screen inside a `gr.Blocks` and answers its events."""

    def build(self, page: gr.Blocks, link: gr.Textbox) -> None:
        """Lay out the components and connect the events."""
        choices = self.studio.choices
        gr.HTML(INTRO, **PLAIN)
        with gr.Column(elem_classes="fs-panel"):
            with gr.Row(elem_classes="fs-inputs fs-inputs-short"):
                prompt, seed = prompt_inputs(*examples_for(self.studio)[0], "trajectory")
                start, stop = buttons("trajectory", "Follow")
            note = gr.HTML(note_html(()), **PLAIN)
            names = [(network.title, network.key) for network in choices.students]
            networks = gr.CheckboxGroup(
                [*names, ("Teacher, 4 steps, no guidance", TEACHER)],
                value=[key for _, key in names[:2]] or [TEACHER],
                label="Beside the teacher's 28 steps",
                elem_id="trajectory-networks",
            )
        status = gr.HTML(status_html("Choose what to follow, and press Follow."), **PLAIN)
        view = gr.HTML(EMPTY, **PLAIN, elem_id="trajectory-view")
        shown = [status, note, stop, view]
        inputs = [prompt, seed, networks]
        asked = [start.click, prompt.submit, seed.submit]
        self.connect(page, asked, self.begin, self.run, inputs, shown)
        stop.click(self.ask_stop, None, [status, stop], **QUICK)

    def begin(self, prompt: Any, seed: Any, networks: Any, request: gr.Request) -> tuple:
        """Check the input and show that work has begun.

        Raises:
            gr.Error: one line with value, limit and fix.
        """
        checked(lambda: trajectory_request(self.studio.choices, prompt, seed, networks))
        turn = self.turns.begin(request.session_hash or "")
        return turn, self.first_status(), note_html(()), gr.Button(interactive=True), gr.skip()

    def run(
        self, prompt: Any, seed: Any, networks: Any, turn: Any, request: gr.Request
    ) -> Iterator[list]:
        """Follow all paths, then show them.

        Raises:
            gr.Error: if the line is full, or the model could not be loaded or fails.
        """
        visitor = request.session_hash or ""
        choices = self.studio.choices
        asked = checked(lambda: trajectory_request(choices, prompt, seed, networks))
        what = subject(asked.prompt, (asked.seed,))
        last: Any = None
        yield skip(4)
        try:
            for last in self.follow(
                lambda stop: self.studio.trajectory(asked, stop), turn, visitor, lambda text: text
            ):
                if isinstance(last, str):
                    yield [last, *skip(3)]
                else:
                    yield [progress(last), note_html(last.notes), *skip(2)]
            if self.overtaken(visitor, turn):
                return
            button = gr.Button(interactive=False)
            if isinstance(last, Trajectories) and last.is_complete:
                headline = f"{len(last.traces)} paths from one noise."
                yield [status_html(headline, what), gr.skip(), button, trajectory_view(last)]
            else:
                yield [status_html("Stopped.", what), gr.skip(), button, gr.skip()]
        except Exception as error:
            if not self.overtaken(visitor, turn):
                yield [status_html("No paths."), gr.skip(), gr.Button(interactive=False), gr.skip()]
            raise shown_error(error, escape) from error


def progress(shown: Trajectories) -> str:
    """The status line while paths are followed."""
    done, total = len(shown.traces), len(shown.request.columns)
    if shown.drawing is None:
        return status_html(f"{done} of {total} paths.", "Drawing them.", 1.0)
    column = next(c for c in shown.request.columns if c.key == shown.drawing)
    steps = column.settings.num_inference_steps or 1
    share = (done + min(shown.steps_done / steps, 1)) / total
    return status_html(f"{done} of {total} paths.", f"Following: {column.title}.", share)
