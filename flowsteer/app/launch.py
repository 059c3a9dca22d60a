"""Starts the app: the page first, the weights behind it."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # Gradio reads it while it is imported

import gradio as gr

from flowsteer.app.api import compare_endpoint
from flowsteer.app.comparator import Comparator
from flowsteer.app.screen import MODEL_QUEUE, CompareScreen
from flowsteer.app.theme import STYLE_SHEET, flowsteer_theme
from flowsteer.loading import check_device, resolve_model
from flowsteer.students import find_student
from flowsteer.validation import PromptWarning

MAX_WAITING = 64


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve the app until it is interrupted.

    Args:
        arguments: of the command line; None takes the process's own.

    Returns:
        The exit code: 0 after an interrupt, 2 for bad options or a port that is taken.
    """
    options = _parser().parse_args(arguments)
    warnings.simplefilter("ignore", PromptWarning)  # the page shows them beside the prompt
    try:
        serve(options.model, options.student, options.device, options.inbrowser)
    except (ValueError, OSError) as error:  # OSError: no port is free
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # while the weights load; later Gradio takes it
        pass
    return 0


def serve(model: str, student: str, device: str | None = None, inbrowser: bool = False) -> None:
    """Serve the page until interrupted; it is there before the weights are.

    Raises:
        ValueError: if the model, the student or the device is unknown or does not load.
        OSError: if the port is taken.
    """
    resolve_model(model)
    find_student(student)
    check_device(device)
    comparator = Comparator(model, student, device)
    try:
        page = build_page(comparator)
        print(f"FlowSteer is at {launch(page, inbrowser)}", flush=True)
        comparator.pipelines()
        page.block_thread()
    finally:
        comparator.close()
        gr.close_all(verbose=False)


def build_page(comparator: Comparator) -> gr.Blocks:
    """The page with all its screens, not yet served."""
    page = gr.Blocks(title="FlowSteer", analytics_enabled=False, fill_width=True)
    with page:
        CompareScreen(comparator).build(page)
        gr.api(
            compare_endpoint(comparator),
            api_name="compare",
            concurrency_id=MODEL_QUEUE,
            concurrency_limit=1,
        )
    return page.queue(max_size=MAX_WAITING)


def launch(page: gr.Blocks, inbrowser: bool = False) -> str:
    """Serve on 127.0.0.1 without blocking; returns the page's address.

    `GRADIO_SERVER_PORT` and `GRADIO_SERVER_NAME` choose another port or address.
    """
    _, address, _ = page.launch(
        share=False,
        quiet=True,
        inbrowser=inbrowser,
        prevent_thread_lock=True,
        theme=flowsteer_theme(),
        css_paths=STYLE_SHEET,
        footer_links=["api", "settings"],
        run_history=False,
        ssr_mode=False,
        pwa=False,
        enable_monitoring=False,
    )
    return address


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="app.py", description="Teacher and student side by side, in the browser."
    )
    parser.add_argument("--model", default="emoji", help="bundled name, folder or hub id")
    parser.add_argument("--student", default="flowsteer", help="bundled name, folder or none")
    parser.add_argument("--device", default=None, help="such as cpu or cuda; a GPU if there is one")
    parser.add_argument("--inbrowser", action="store_true", help="open the page in a browser")
    return parser
