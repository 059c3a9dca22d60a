"""The page: six screens behind tabs, and the endpoints for programs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from flowsteer.app.api import compare_endpoint, schedule_endpoint, trajectory_endpoint
from flowsteer.app.links import SCREENS, Link
from flowsteer.app.screens.about import AboutScreen
from flowsteer.app.screens.base import HERE, PLAIN, QUICK, Screen
from flowsteer.app.screens.blind import BlindScreen
from flowsteer.app.screens.compare import CompareScreen
from flowsteer.app.screens.results import ResultsScreen
from flowsteer.app.screens.scheduler import SchedulerScreen
from flowsteer.app.screens.trajectory import TrajectoryScreen
from flowsteer.app.studio import Studio

SCREEN_CLASSES: dict[str, Callable[[Studio], Screen]] = {
    "compare": CompareScreen,
    "trajectory": TrajectoryScreen,
    "scheduler": SchedulerScreen,
    "blind": BlindScreen,
    "results": ResultsScreen,
    "about": AboutScreen,
}
ENDPOINTS = {
    "compare": compare_endpoint,
    "trajectory": trajectory_endpoint,
    "schedule": schedule_endpoint,
}


def build_page(studio: Studio) -> gr.Blocks:
    """The page with all its screens, not yet served."""
    page = gr.Blocks(title="FlowSteer", analytics_enabled=False, fill_width=True)
    with page:
        gr.HTML((HERE / "intro.html").read_text(encoding="utf-8"), **PLAIN)
        link = gr.Textbox("", visible=False)
        with gr.Tabs(elem_id="screens", overflow_behavior="wrap") as tabs:
            for key, name in SCREENS.items():
                with gr.Tab(name, id=key, elem_id=f"screen-{key}") as tab:
                    SCREEN_CLASSES[key](studio).build(page, link)
                script = f"() => {{ window.flowsteer.setQuery({{ screen: {key!r} }}); return []; }}"
                tab.select(None, None, None, js=script)

        def open_screen(query: Any) -> Any:
            screen = Link.read(query, studio.choices).screen
            return gr.Tabs(selected=screen) if screen else gr.skip()

        # a query is never empty here: without one it must change too, for the first picture
        page.load(None, None, link, js="() => window.flowsteer.opened")
        link.change(open_screen, link, tabs, **QUICK)
        for name, make in ENDPOINTS.items():
            gr.api(make(studio), api_name=name, concurrency_limit=None)
    # the desk has a line of its own, whose places the screens can tell
    return page.queue(max_size=None, default_concurrency_limit=None)
