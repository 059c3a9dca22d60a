"""How long a visitor of the app waits, against the bare calls behind what they see."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from flowsteer.bench.pictures import PROMPT
from flowsteer.bench.processes import find_chromium, running_app
from flowsteer.bench.report import BenchReport, Ratio, Timing, interleave

CLICK_ALLOWANCE = 0.3  # seconds for browser and server, beside twice the bare call
COLUMNS = 4


def bench_app(student: str, repeats: int = 5) -> BenchReport:
    """The page's first use, one click to a 4-step picture, and four columns, on the CPU.

    With playwright and a Chromium the page is a real one; without, these two figures are left out.

    Args:
        student: bundled name or folder.
        repeats: runs of each.
    """
    from flowsteer.generation import Settings, generate
    from flowsteer.loading import load_pipeline

    pipe = load_pipeline(student=student, device="cpu")
    steps = Settings().resolve(pipe).numbers()[0]

    def bare() -> None:
        generate(pipe, PROMPT, 0, Settings(num_inference_steps=steps, guidance_scale=1.0))

    columns, ratio = _columns(student, repeats)
    timings, ratios, notes = [*columns], [ratio], ()
    if find_chromium() is None:
        notes = ("no Chromium for playwright: the page itself is not timed",)
    else:
        page, more = _page(student, steps, repeats, bare)
        timings, ratios = [*page, *columns], [*more, ratio]
    return BenchReport("The app on the CPU", tuple(timings), tuple(ratios), notes)


def _columns(student: str, repeats: int) -> tuple[list[Timing], Ratio]:
    """Four columns through the app's own queue, and each of them alone."""
    from flowsteer.app.requests import compare_request
    from flowsteer.app.studio import Studio
    from flowsteer.generation import generate

    studio = Studio("emoji", [student], "cpu")
    try:
        pipelines, columns = studio.pipelines(), studio.choices.default()
        chosen = [columns[0], *columns[-(COLUMNS - 1) :]]
        request = compare_request(studio.choices, PROMPT, 0, 1, chosen)
        tasks: dict[str, Callable[[], object]] = {
            f"compare, {COLUMNS} columns": lambda: list(studio.compare(request))
        }
        for column in chosen:
            pipe = pipelines.pipeline(column.settings.student)
            tasks[f"alone: {column.title}"] = lambda pipe=pipe, settings=column.settings: generate(
                pipe, PROMPT, 0, settings
            )
        timings = interleave(tasks, repeats)
    finally:
        studio.close()
    whole, *parts = (timing.median for timing in timings)
    return timings, Ratio(f"{COLUMNS} columns / sum of the parts", whole / sum(parts), at_most=1.15)


def _page(
    student: str, steps: int, repeats: int, bare: Callable[[], None]
) -> tuple[list[Timing], list[Ratio]]:
    """The page's first use and a click, with bare calls in between."""
    from playwright.sync_api import sync_playwright

    chromium = find_chromium()
    usable: list[float] = []
    clicks: list[float] = []
    calls: list[float] = []
    with running_app(student) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        key = f"{student.rstrip('/').rsplit('/', 1)[-1]}-{steps}-rectified-1"
        page: Any = None
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
            start = time.perf_counter()
            page.locator("#compare-go").click()
            page.wait_for_selector(f'.fs-board img[alt$="{word}"]')
            clicked = time.perf_counter() - start
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
    ratios = [
        Ratio("page usable, in seconds,", statistics.median(usable), at_most=3.0),
        Ratio(
            f"(click - {CLICK_ALLOWANCE:g} s) / bare call",
            (click - CLICK_ALLOWANCE) / call,
            at_most=2.0,
        ),
    ]
    return timings, ratios


def _wait_for_end(page: Any) -> None:
    page.wait_for_selector("#compare-stop[disabled]")
