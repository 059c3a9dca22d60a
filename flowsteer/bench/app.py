"""How long a visitor of the app waits, against the bare calls behind what they see."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from flowsteer.bench.pictures import PROMPT
from flowsteer.bench.processes import find_chromium, running_app
from flowsteer.bench.report import BenchReport, Ratio, Timing, interleave

CLICK_ALLOWANCE = 0.3  # seconds for browser and server, beside twice the bare call


def bench_app(student: str, repeats: int = 5) -> BenchReport:
    """The page's first use, one click to a 4-step picture, and four columns, on the CPU.

    With playwright and a Chromium the page is a real one; without, these two figures are left out.

    Args:
        student: bundled name or folder.
        repeats: runs of each.
    """
    from flowsteer.generation import Settings, generate
    from flowsteer.loading import TEACHER_STEPS, load_pipeline, with_student

    teacher = load_pipeline(device="cpu")
    pipe = with_student(teacher, student)
    steps = Settings().resolve(pipe).numbers()[0]
    few = Settings(num_inference_steps=steps, guidance_scale=1.0)
    # student, and the teacher in full, with as many steps, and these without guidance
    rows = [
        (pipe, few),
        *((teacher, s) for s in (Settings(), replace(few, guidance_scale=None), few)),
    ]
    alone = {
        f"alone: column {index + 1}": partial(generate, network, PROMPT, 0, settings)
        for index, (network, settings) in enumerate(rows)
    }
    columns = [
        {"network": _key(student) if network is pipe else "teacher"}
        | {"steps": settings.num_inference_steps or TEACHER_STEPS}
        | {"guidance": settings.guidance_scale}
        for network, settings in rows
    ]
    with running_app(student) as address:
        timings, ratios = _columns(address, columns, alone, repeats)
        if find_chromium() is None:
            notes: tuple[str, ...] = ("no Chromium for playwright: the page itself is not timed",)
        else:
            notes = ()
            bare = partial(generate, pipe, PROMPT, 0, few)
            page, more = _page(address, f"{_key(student)}-{steps}-rectified-1", repeats, bare)
            timings, ratios = [*page, *timings], [*more, *ratios]
    return BenchReport("The app on the CPU", tuple(timings), tuple(ratios), notes)


def _key(student: str) -> str:
    """What the app calls it."""
    return os.path.basename(os.path.normpath(student))


def _columns(
    address: str,
    columns: list[dict[str, Any]],
    alone: Mapping[str, Callable[[], object]],
    repeats: int,
) -> tuple[list[Timing], list[Ratio]]:
    """All columns through the app's endpoint, and each of them alone in this process."""
    from gradio_client import Client

    client = Client(address, verbose=False)
    name = f"compare, {len(columns)} columns"
    whole = partial(client.predict, PROMPT, 0, 1, columns, api_name="/compare")
    timings = interleave({name: whole, **alone}, repeats)
    total, *parts = (timing.median for timing in timings)
    label = f"{len(columns)} columns / sum of the parts"
    return timings, [Ratio(label, total / sum(parts), at_most=1.15)]


def _page(
    address: str, key: str, repeats: int, bare: Callable[[], object]
) -> tuple[list[Timing], list[Ratio]]:
    """The page's first use and a click, with bare calls in between."""
    from playwright.sync_api import sync_playwright

    usable: list[float] = []
    clicks: list[float] = []
    calls: list[float] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
        for _ in range(3):
            page = browser.new_page()
            start = time.perf_counter()
            page.goto(f"{address}?columns={key}")
            page.wait_for_selector("#compare-go:not([disabled])")
            usable.append(time.perf_counter() - start)
            page.wait_for_selector(".fs-board img")
            _wait_for_end(page)
        for number in range(repeats + 1):
            word = f"a koala {number}"
            page.get_by_label("Prompt").fill(word)
            clicked = page.evaluate(_CLICK, word) / 1000
            _wait_for_end(page)  # the reference, which no column shows
            start = time.perf_counter()
            bare()
            if number:  # the first round warms up
                clicks.append(clicked)
                calls.append(time.perf_counter() - start)
        browser.close()
    call, click = statistics.median(calls), statistics.median(clicks)
    timings = [
        Timing("page usable after the server answers", tuple(usable)),
        Timing("click to a 4-step picture", tuple(clicks)),
        Timing("the bare call", tuple(calls)),
    ]
    waited = (click - CLICK_ALLOWANCE) / call
    ratios = [
        Ratio("page usable, in seconds,", statistics.median(usable), at_most=3.0),
        Ratio(f"(click - {CLICK_ALLOWANCE:g} s) / bare call", waited, at_most=2.0),
    ]
    return timings, ratios


# timed by the page's own clock: looking at it from outside would take part of what is measured
_CLICK = """word => new Promise(done => {
  const start = performance.now();
  const shown = () => document.querySelector(`.fs-board img[alt$="${word}"]`)?.complete;
  const look = () => requestAnimationFrame(
    () => shown() ? done(performance.now() - start) : look());
  document.querySelector("#compare-go").click();
  look();
})"""


def _wait_for_end(page: Any) -> None:
    page.wait_for_selector("#compare-stop[disabled]")
