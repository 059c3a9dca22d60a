"""Starts the app: the page first, the weights behind it."""

from __future__ import annotations

import argparse
import atexit
import os
import signal
import sys
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path

from flowsteer.app.temporary import make_folder, remove_folder

# Gradio reads them while it is imported, or makes its queue: it keeps a record of every event, and
# sums all of them up after each; and it has a folder for files, of which the app has none
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["GRADIO_ANALYTICS_MAX_EVENTS"] = "1"
os.environ["GRADIO_ANALYTICS_CACHE_FREQUENCY"] = str(10**12)
os.environ["GRADIO_TEMP_DIR"] = str(make_folder())

import gradio as gr
from starlette.middleware import Middleware

from flowsteer.app.door import Door
from flowsteer.app.memory import share_arenas
from flowsteer.app.page import build_page
from flowsteer.app.screens.base import HERE
from flowsteer.app.sessions import MOST_SESSIONS, Sessions
from flowsteer.app.studio import Studio
from flowsteer.app.theme import STYLE_SHEET, flowsteer_theme
from flowsteer.app.tools import check_installed, serve_pictures
from flowsteer.loading import check_device, check_drawable
from flowsteer.validation import PromptWarning

TEMPORARY = Path(os.environ["GRADIO_TEMP_DIR"])
atexit.register(remove_folder, TEMPORARY)
MAX_THREADS = 48  # of Gradio's: more than can be in line, so that the page answers meanwhile


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve the app until it is interrupted.

    Args:
        arguments: of the command line; None takes the process's own.

    Returns:
        The exit code: 0 after an interrupt, 2 for bad options or a port that is taken.
    """
    options = _parser().parse_args(arguments)
    share_arenas()  # before threads have heaps of their own
    if threading.current_thread() is threading.main_thread():
        # whoever ends a container sends this; it should leave as little behind as Ctrl-C
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    warnings.simplefilter("ignore", PromptWarning)  # the page shows them beside the prompt
    try:
        if options.mcp:
            check_installed()
        serve(options.model, options.student, options.device, options.inbrowser, options.mcp)
    except (ValueError, OSError) as error:  # OSError: no port is free
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # while the weights load; later Gradio takes it
        pass
    return 0


def serve(
    model: str,
    students: Sequence[str] = (),
    device: str | None = None,
    inbrowser: bool = False,
    mcp: bool = False,
) -> None:
    """Serve the page until interrupted; it is there before the weights are.

    Raises:
        ValueError: if the model, a student or the device is unknown or does not load.
        OSError: if the port is taken.
    """
    check_drawable(model)
    check_device(device)
    studio = Studio(model, students, device)
    try:
        page = build_page(studio)
        print(f"FlowSteer is at {launch(page, inbrowser, mcp)}", flush=True)
        studio.pipelines()
        page.block_thread()
    finally:
        studio.close()
        gr.close_all(verbose=False)


def launch(page: gr.Blocks, inbrowser: bool = False, mcp: bool = False) -> str:
    """Serve on 127.0.0.1 without blocking; returns the page's address.

    `GRADIO_SERVER_PORT` and `GRADIO_SERVER_NAME` choose another port or address.
    """
    script = (HERE / "app.js").read_text(encoding="utf-8")
    sessions = Sessions(page, TEMPORARY)
    door = Middleware(Door, page=page, sessions=sessions)
    _, address, _ = page.launch(
        share=False,
        quiet=True,
        inbrowser=inbrowser,
        prevent_thread_lock=True,
        max_threads=MAX_THREADS,
        state_session_capacity=MOST_SESSIONS,
        app_kwargs={"middleware": [door], "lifespan": sessions.lifespan},
        max_file_size=0,  # Gradio has a route for uploads, which the app never needs
        theme=flowsteer_theme(),
        css_paths=STYLE_SHEET,
        head=f"<script>{script}</script>",
        footer_links=["api", "settings"],
        run_history=False,
        ssr_mode=False,
        pwa=False,
        enable_monitoring=False,
        mcp_server=mcp,
    )
    if mcp:
        serve_pictures(page)
    return address


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="app.py", description="Teacher and students side by side, in the browser."
    )
    parser.add_argument("--model", default="emoji", help="bundled name, folder or hub id")
    parser.add_argument(
        "--student",
        action="append",
        default=[],
        help="bundled name or folder, may be given several times, the first is shown first; none"
        " for the teacher alone; the emoji model has its shipped ones without this",
    )
    parser.add_argument("--device", default=None, help="such as cpu or cuda; a GPU if there is one")
    parser.add_argument("--inbrowser", action="store_true", help="open the page in a browser")
    parser.add_argument(
        "--mcp", action="store_true", help="also serve the endpoints as tools (MCP)"
    )
    return parser
