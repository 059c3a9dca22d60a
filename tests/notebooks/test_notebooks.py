"""The committed notebooks keep their promises, and run from top to bottom."""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from flowsteer.notebook import VARIABLE

FOLDER = Path(__file__).parents[2] / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
EXPLORER = re.compile(r"^(?:(\w+) = )?\w+Explorer\(", re.MULTILINE)
LONGEST_CELL = 45  # lines: a screen
every_notebook = pytest.mark.parametrize("name", NAMES)


@cache
def read(name):
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def cells(name, kind):
    return [cell for cell in read(name).cells if cell.cell_type == kind]


def outputs(cell, kind):
    """A cell's outputs that show this MIME type."""
    return [output for output in cell.outputs if kind in output.get("data", {})]


def test_there_are_notebooks_and_their_numbers_rise():
    assert NAMES
    assert len({name[:2] for name in NAMES}) == len(NAMES)


@every_notebook
def test_it_opens_with_what_why_and_how_long(name):
    first = read(name).cells[0]
    assert first.cell_type == "markdown" and first.source.startswith("# ")
    for promise in ("You will learn", "Time", "Needs"):
        assert promise in first.source


@every_notebook
def test_it_ends_with_three_folded_exercises_and_one_open_question(name):
    text = "\n".join(cell.source for cell in cells(name, "markdown")[-3:])
    assert "## Exercises" in text and text.count("<details>") == text.count("</details>") == 3
    last = read(name).cells[-1]
    assert last.cell_type == "markdown" and "## An open question" in last.source


@every_notebook
def test_it_is_committed_with_its_outputs_and_below_a_megabyte(name):
    assert (FOLDER / f"{name}.ipynb").stat().st_size < 1_000_000
    counts = [cell.execution_count for cell in cells(name, "code")]
    assert counts == list(range(1, len(counts) + 1))
    shown = [output for cell in cells(name, "code") for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in shown)
    for output in shown:
        assert output.output_type != "error" and output.get("name") != "stderr", output
    # what a reader's machine is called or where it keeps files is nobody's business
    assert not re.search(r"/home/|/work/|/tmp/|/Users/", (FOLDER / f"{name}.ipynb").read_text())


@every_notebook
def test_every_explorer_is_followed_by_a_figure_that_stays(name):
    code = cells(name, "code")
    for cell, following in zip(code, [*code[1:], None], strict=True):
        found = EXPLORER.search(cell.source)
        if found is None:
            continue
        assert found[1], f"give the explorer a name: {cell.source}"
        assert following is not None and f"{found[1]}.figure" in following.source
        assert outputs(following, "image/png")


@every_notebook
def test_code_cells_fit_a_screen_and_leave_files_alone(name):
    for cell in cells(name, "code"):
        assert len(cell.source.splitlines()) <= LONGEST_CELL, cell.source[:80]
        assert "optimizer" not in cell.source and "backward()" not in cell.source
        assert not re.search(r"^\s*[!%]", cell.source, re.MULTILINE)


@every_notebook
def test_the_switch_is_read_in_one_line(name):
    reads = [
        line
        for cell in cells(name, "code")
        for line in cell.source.splitlines()
        if "is_quick(" in line and "import" not in line
    ]
    assert reads


@pytest.mark.slow
@every_notebook
def test_it_runs_from_top_to_bottom(name, tmp_path):
    """The same cells on less, in an empty folder and without a network beyond this machine."""
    notebook = nbformat.from_dict(read(name))
    environment = os.environ | {VARIABLE: "quick", "HF_HUB_OFFLINE": "1"}
    root = str(FOLDER.parent)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    client = NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    )
    client.execute(env=environment)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert not [o for o in cell.outputs if o.get("name") == "stderr"], cell.source
            if EXPLORER.search(cell.source):
                assert outputs(cell, "application/vnd.jupyter.widget-view+json")
