"""What all screens share: the studio, whose turn it is, and how errors are told."""

from __future__ import annotations

import logging
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from flowsteer.app.desk import Waiting
from flowsteer.app.html import escape, status_html, waiting_html
from flowsteer.app.studio import Studio
from flowsteer.app.turns import Turns

logger = logging.getLogger(__name__)

HERE = Path(__file__).parents[1]
PLAIN: dict[str, Any] = {"js_on_load": None, "apply_default_css": False}  # for our own HTML
QUICK: dict[str, Any] = {
    "queue": False,
    "show_progress": "hidden",
    "api_visibility": "private",
    "trigger_mode": "multiple",
    "preprocess": False,
}
"""Of events that answer at once. What comes is checked here, and not first by the component, whose
complaints are tracebacks in the log."""
STREAM = QUICK | {"queue": True, "concurrency_limit": None}
"""Of events that check or draw: queued, since only there Gradio shows errors to the visitor; with
no limit of Gradio's, since the desk has its own line."""
EXAMPLES = (
    ("a 3d koala left of a flat pizza on a pink background", 0),
    ("three strawberries on a blue background", 0),
    ("a small rocket in the top left", 0),
    ("two twemoji cats on a yellow background", 0),
    ("a noto fox and a flat avocado", 0),
    ("🐨 on blue", 0),
)
GENERAL_EXAMPLES = (
    ("a koala eating a pizza, studio photograph, pink background", 0),
    ("a lighthouse on a cliff at dusk, oil painting", 0),
    ("a red bicycle leaning against a brick wall", 0),
    ("a bowl of strawberries on a blue table", 0),
)


def examples_for(studio: Studio) -> tuple[tuple[str, int], ...]:
    """Prompts and seeds that show what the model can do."""
    return EXAMPLES if studio.has_detector else GENERAL_EXAMPLES


class Screen(ABC):
    """A screen with one request at a time for each visitor.

    Args:
        studio: what draws.
    """

    def __init__(self, studio: Studio):
        self.studio = studio
        self.turns = Turns()

    @abstractmethod
    def build(self, page: gr.Blocks, link: gr.Textbox) -> None:
        """Lay out the components and connect the events.

        Args:
            page: to build in.
            link: gets the query of the page's address once it is open.
        """

    def connect(
        self,
        page: gr.Blocks,
        triggers: Sequence[Any],
        begin: Callable[..., Any],
        run: Callable[..., Any],
        inputs: Sequence[Any],
        shown: Sequence[Any],
    ) -> None:
        """Let events begin a turn and, where their input is right, run it.

        Args:
            page: whose visitors may leave.
            triggers: the events.
            begin: of `inputs`; checks them, and gives the turn's number and what is shown.
            run: of `inputs` and the turn's number; yields what is shown.
            inputs: components that are read.
            shown: components that both write.
        """
        turn = gr.Number(0, visible=False)
        begun = gr.on(list(triggers), begin, list(inputs), [turn, *shown], **STREAM)
        begun.success(run, [*inputs, turn], list(shown), **STREAM)
        page.unload(self.leave)

    def ask_stop(self, request: gr.Request) -> tuple:
        """Ask the visitor's running request to end; it does so after the step in work."""
        self.turns.stop(request.session_hash or "")
        return status_html("Stopping."), gr.Button(interactive=False)

    def leave(self, request: gr.Request) -> None:
        """The visitor has closed the page: stop drawing for them."""
        self.turns.forget(request.session_hash or "")

    def first_status(self) -> str:
        """The status line before the worker has said anything."""
        detail = "" if self.studio.is_loaded else "It is loading; this happens once."
        return status_html("Waiting for the model.", detail)

    def follow(
        self,
        start: Callable[[Callable[[], bool]], Iterator[Any]],
        turn: Any,
        visitor: str,
        on_wait: Callable[[str], Any],
    ) -> Iterator[Any]:
        """What `start(should_stop)` yields in this turn; `on_wait(status)` while in line."""

        def should_stop() -> bool:
            return self.overtaken(visitor, turn) or self.turns.is_stopped(visitor)

        for news in start(should_stop):
            if self.overtaken(visitor, turn):
                return
            if isinstance(news, Waiting):
                yield on_wait(waiting_html(news, self.studio.is_loaded))
            else:
                yield news

    def overtaken(self, visitor: str, turn: Any) -> bool:
        """Whether a newer request of this visitor has come."""
        return not self.turns.is_current(visitor, turn)


def skip(count: int) -> list[Any]:
    """Nothing new for so many outputs; Gradio empties those of a generator without a yield."""
    return [gr.skip()] * count


def prompt_inputs(prompt: str, seed: int, name: str) -> tuple[gr.Textbox, gr.Number]:
    """Boxes for a prompt and a seed; `name` makes their ids unique."""
    prompt_box = gr.Textbox(
        prompt,
        label="Prompt",
        placeholder="What to draw, such as: a 3d koala on a blue background",
        max_lines=3,
        min_width=0,
        elem_id=f"{name}-prompt",
        elem_classes="fs-prompt",
    )
    seed_box = gr.Number(seed, label="Seed", precision=None, min_width=0, elem_id=f"{name}-seed")
    return prompt_box, seed_box


def buttons(name: str, action: str) -> tuple[gr.Button, gr.Button]:
    """A button that starts and one that stops."""
    start = gr.Button(
        action, variant="primary", min_width=0, elem_id=f"{name}-go", elem_classes="fs-go"
    )
    stop = gr.Button(
        "Stop", interactive=False, min_width=0, elem_id=f"{name}-stop", elem_classes="fs-stop"
    )
    return start, stop


def shown_error(error: BaseException, quote: Callable[[str], str] = str) -> gr.Error:
    """What a visitor is told of an error: a `ValueError` in full, of others the kind."""
    if isinstance(error, ValueError):
        return gr.Error(quote(str(error)), print_exception=False)
    kind = type(error).__name__
    # the message may hold what a visitor typed: escaped, it stays on its line of the log
    where = "".join(traceback.format_tb(error.__traceback__))
    logger.error("drawing failed with %s: %s\n%s", kind, ascii(str(error)), where)
    return gr.Error(f"Drawing failed ({kind}); the server's log says why.", print_exception=False)


def checked(check: Callable[[], Any]) -> Any:
    """What a check returns, or its complaint as one line for the visitor.

    Raises:
        gr.Error: safe to show as HTML.
    """
    try:
        return check()
    except Exception as error:
        raise shown_error(error, escape) from error
