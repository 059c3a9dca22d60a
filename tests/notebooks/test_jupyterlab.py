"""A notebook in a real JupyterLab: open, run all, move a slider, see the figure change."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from flowsteer.notebook import VARIABLE

ROOT = Path(__file__).parents[2]
NOTEBOOK = "01_ode_paths.ipynb"
MINUTE = 60_000  # milliseconds


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Address of a JupyterLab on a copy of the notebook, without a token, on this machine alone."""
    folder = tmp_path_factory.mktemp("lab")
    shutil.copy(ROOT / "notebooks" / NOTEBOOK, folder)
    # cells out of sight would not be in the page otherwise, and Run All scrolls to the end
    settings = folder / ".settings" / "@jupyterlab" / "notebook-extension"
    settings.mkdir(parents=True)
    (settings / "tracker.jupyterlab-settings").write_text('{"windowingMode": "none"}')
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    paths = filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])
    environment = os.environ | {
        VARIABLE: "quick",
        "PYTHONPATH": os.pathsep.join(paths),
        **{f"JUPYTER_{kind}_DIR": str(folder / f".{kind}") for kind in ("CONFIG", "RUNTIME")},
        "JUPYTERLAB_SETTINGS_DIR": str(folder / ".settings"),
        "IPYTHONDIR": str(folder / ".ipython"),
    }
    options = ["--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1"]
    options += [f"--ServerApp.port={port}", "--IdentityProvider.token=", f"--notebook-dir={folder}"]
    options += ["--LabApp.news_url=", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    process = subprocess.Popen(
        [sys.executable, "-m", "jupyterlab", *options],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=(folder / "log").open("w"),
    )
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"{address}/api", timeout=5).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    pytest.fail((folder / "log").read_text())
                time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture
def page(browser, lab):
    """The notebook, open."""
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    page.set_default_timeout(2 * MINUTE)
    page.goto(f"{lab}/lab/tree/{NOTEBOOK}?reset")
    yield page
    page.close()


def picture(explorer):
    return explorer.locator("img").get_attribute("src")


def wait_for_another(page, explorer, before):
    for _ in range(600):
        if picture(explorer) != before:
            return
        page.wait_for_timeout(100)
    pytest.fail("the figure did not change within a minute")


@pytest.mark.slow
def test_run_all_then_a_dragged_slider_and_a_key_change_the_figure(page, tmp_path):
    page.locator(".jp-Notebook").wait_for()
    # before the kernel answers, the command would be swallowed or ask which kernel to start
    page.locator("#jp-main-statusbar").get_by_text("Python 3 (ipykernel) | Idle").wait_for()
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text("Run All Cells", exact=True).click()

    explorer = page.locator(".jp-OutputArea-output .widget-vbox").first
    explorer.locator("img").wait_for(state="attached")
    explorer.scroll_into_view_if_needed()
    # wait for the whole run: the last code cell has its number
    page.wait_for_function(
        "() => document.querySelector('.jp-Notebook-ExecutionIndicator')"
        "?.dataset.status === 'idle'"
    )
    explorer.scroll_into_view_if_needed()
    slider = explorer.locator(".widget-slider", has_text="steps N")
    handle = slider.locator(".noUi-handle")
    count = slider.locator(".widget-readout")

    before, steps = picture(explorer), count.inner_text()
    box = handle.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + 60, box["y"] + box["height"] / 2, steps=8)
    page.mouse.up()
    wait_for_another(page, explorer, before)
    assert int(count.inner_text()) > int(steps)

    page.wait_for_timeout(1000)  # the drag's last figure
    before, steps = picture(explorer), count.inner_text()
    handle.focus()
    page.keyboard.press("ArrowRight")
    wait_for_another(page, explorer, before)
    assert int(count.inner_text()) == int(steps) + 1
    assert f"{count.inner_text()} calls" in explorer.get_by_role("status").inner_text()

    page.screenshot(path=tmp_path / "lab.png")
    assert (tmp_path / "lab.png").stat().st_size > 20_000
