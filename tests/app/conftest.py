"""The real app in a process of its own, and a real Chromium to look at it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def student() -> str:
    """The student of the last column."""
    return "flowsteer"


@pytest.fixture(scope="session")
def start_app() -> Iterator[Callable[..., tuple[subprocess.Popen, str]]]:
    """`start_app(options, environment, log)` runs `python app.py`: its process and its address.

    What it prints goes into the file `log`, or else is read from the process.
    """
    started = []

    def start(
        options: Sequence[str],
        environment: Mapping[str, str] | None = None,
        log: Path | None = None,
    ):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        process = subprocess.Popen(
            [sys.executable, "app.py", *options, "--device", "cpu"],
            cwd=ROOT,
            env=os.environ | {"GRADIO_SERVER_PORT": str(port)} | (environment or {}),
            stdout=subprocess.PIPE if log is None else log.open("wb"),
            stderr=subprocess.STDOUT,
            preexec_fn=_heed_interrupts,
        )
        started.append(process)
        address = f"http://127.0.0.1:{port}"
        _wait_until_served(process, address)
        return process, address

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def app_address(start_app, student) -> Iterator[str]:
    """Address of `python app.py` with the bundled model; an interrupt must end it cleanly."""
    process, address = start_app(["--student", student])
    yield address
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=60)[0].decode()
    assert process.returncode == 0, output
    assert "Traceback" not in output, output


def _wait_until_served(process: subprocess.Popen, address: str) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if process.poll() is not None:
            pytest.fail(f"app.py ended at once: {process.communicate()[0].decode()}")
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except OSError:
            time.sleep(0.1)
    pytest.fail("app.py served nothing within two minutes")


@dataclass
class Visit:
    """A page of the app, and what went wrong or out while it was looked at."""

    page: object
    console: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)


@pytest.fixture
def visit(browser, app_address):
    """`visit(width, height, scheme, query)` opens the app; a console error or a request outside
    fails."""
    visits = []

    def open_page(width: int = 1440, height: int = 1000, scheme: str = "light", query: str = ""):
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, accept_downloads=True
        )
        context.set_default_timeout(120_000)
        page = context.new_page()
        seen = Visit(page)
        page.on("console", lambda m: m.type == "error" and seen.console.append(m.text))
        page.on("pageerror", lambda error: seen.console.append(str(error)))
        local = (app_address, app_address.replace("http", "ws"), "data:", "blob:")
        context.on("request", lambda r: r.url.startswith(local) or seen.outside.append(r.url))
        visits.append((context, seen))
        page.goto(f"{app_address}/{query}")
        page.wait_for_selector("#screens")
        return page

    yield open_page
    for context, seen in visits:
        context.close()
        assert not seen.outside
        assert not seen.console


def _heed_interrupts() -> None:
    """A shell's background jobs, and so their children, start deaf to SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
