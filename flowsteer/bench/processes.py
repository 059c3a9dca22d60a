"""How long fresh processes take: imports, and the app to its first picture."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from flowsteer.bench.pictures import PROMPT
from flowsteer.bench.report import BenchReport, Ratio, Timing
from flowsteer.validation import check_whole_number


def bench_import(repeats: int = 5) -> BenchReport:
    """What `import flowsteer` adds to `import torch`, and what the loader takes after it.

    Every run is a fresh process.
    """
    check_whole_number("repeats", repeats, 1, 1000)
    names = ("import torch", "then import flowsteer", "then its loader and diffusers")
    runs = list(zip(*(_import_once() for _ in range(repeats)), strict=True))
    timings = tuple(Timing(name, tuple(run)) for name, run in zip(names, runs, strict=True))
    ratio = Ratio("import flowsteer adds, in seconds,", timings[1].median, at_most=0.3)
    return BenchReport("Imports, fresh processes", timings, (ratio,))


_IMPORTS = """
import time
times = [time.perf_counter()]
for line in ("import torch", "import flowsteer", "import flowsteer.comparing, flowsteer.prompting"):
    exec(line)
    times.append(time.perf_counter())
print(*(b - a for a, b in zip(times, times[1:])))
"""


def _import_once() -> tuple[float, ...]:
    done = subprocess.run(
        [sys.executable, "-c", _IMPORTS], capture_output=True, text=True, check=True, env=os.environ
    )
    return tuple(float(word) for word in done.stdout.split())


def bench_start(student: str, repeats: int = 3) -> BenchReport:
    """From `python app.py` to its address, and to the first 4-step picture on the page.

    The page draws its example as soon as it is open. With playwright and a Chromium it is a real
    page; without, the app's own endpoint is asked for the same pictures.

    Args:
        student: bundled name or folder.
        repeats: fresh starts.

    Raises:
        RuntimeError: if the app ends before it answers.
    """
    check_whole_number("repeats", repeats, 1, 1000)
    chromium = find_chromium()
    # the browser is there already, as it is on a user's screen
    with _browser(chromium) if chromium else nullcontext(_picture_by_endpoint) as wait:
        runs = [_start_once(student, wait) for _ in range(repeats)]
    served, drawn = (tuple(run) for run in zip(*runs, strict=True))
    timings = (Timing("the server answers", served), Timing("first 4-step picture", drawn))
    ratio = Ratio("first 4-step picture, in seconds,", timings[1].median, at_most=20.0)
    how = "in Chromium" if chromium else "through the endpoint"
    return BenchReport(f"From `python app.py`, {how}, {os.cpu_count()} cores", timings, (ratio,))


def find_chromium() -> str | None:
    """Path of an installed Chromium that playwright can drive; None without either."""
    if importlib.util.find_spec("playwright") is None:
        return None
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for path in map(shutil.which, names) if path), None)


def _start_once(student: str, wait: Callable[[str], None]) -> tuple[float, float]:
    """Seconds to the address and to the picture."""
    start = time.perf_counter()
    with running_app(student) as address:
        served = time.perf_counter() - start
        wait(address)
        return served, time.perf_counter() - start


@contextmanager
def running_app(student: str) -> Iterator[str]:
    """`python app.py` in a process of its own; its address, once it is served.

    Raises:
        RuntimeError: if the app ends before it answers.
    """
    script = Path(__file__).parents[2] / "app.py"
    run = [str(script)]
    if not script.is_file():  # installed from a wheel
        run = ["-c", "from flowsteer.app.launch import main; main()"]
    app = subprocess.Popen(
        [sys.executable, *run, "--student", student],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"GRADIO_SERVER_PORT": str(_free_port())},
    )
    try:
        assert app.stdout is not None
        address = next((word for line in app.stdout for word in line.split() if "://" in word), "")
        if not address:
            raise RuntimeError(f"the app ended with code {app.wait()} before it was served")
        yield address
    finally:
        app.terminate()
        app.wait()


@contextmanager
def _browser(chromium: str) -> Iterator[Callable[[str], None]]:
    """A function that opens an address and returns once a 4-step picture is seen."""
    from playwright.sync_api import sync_playwright

    card = '.fs-board article[data-state="done"]:not([data-role="reference"]) img'
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])

        def wait(address: str) -> None:
            page = browser.new_page()
            page.goto(address)
            page.wait_for_selector(card, timeout=120_000)
            page.close()

        yield wait
        browser.close()


def _picture_by_endpoint(address: str) -> None:
    from gradio_client import Client

    job = Client(address, verbose=False).submit(PROMPT, 0, api_name="/compare")
    for result in job:
        if result["cards"]:
            job.cancel()
            return


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
