"""The results screen: with and without a reproduction, and the paper's numbers named as such."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import re

import pytest

from flowsteer.app.figures import written_figure_html
from flowsteer.app.markdown import markdown_html
from flowsteer.app.screens.results import (
    REPRODUCTION,
    RESULTS,
    measured_html,
    paper_html,
    reproduction_html,
    results_html,
)
from flowsteer.cli.reproduce import Reproduce
from flowsteer.plots.style import THEMES


@pytest.fixture(scope="module")
def reproduction(tmp_path_factory):
    """Two real cells of the smoke preset."""
    folder = tmp_path_factory.mktemp("reproduction")
    cells = ("0-variants", "2-scheduler-teacher")
    with contextlib.redirect_stdout(io.StringIO()):
        Reproduce(preset="smoke", output_dir=folder, cells=cells, device="cpu").run()
    return folder


def test_without_a_reproduction_it_says_so(tmp_path):
    text = results_html(RESULTS, tmp_path / "nothing")
    assert "No report of the reproduction is in this package" in text
    assert "teacher, 28 steps" in text and "What the paper reports" in text


def test_a_reproduction_is_shown_with_tables_plots_and_its_sheet(reproduction, tmp_path):
    text = results_html(tmp_path, reproduction)
    assert "No report" not in text and "No measured results" in text
    assert "This teacher has random weights" in text
    assert text.count("data-fs-sort") > 10
    assert text.count('class="fs-light" src="data:image/svg') == 1  # the scheduler's plot
    assert text.count('class="fs-dark" src="data:image/svg') == 1
    assert text.count("<figcaption>") == 1  # the sheet of all strips
    assert str(reproduction) not in text


def test_a_report_that_is_no_text_is_named_and_nothing_else_breaks(tmp_path):
    (tmp_path / "report.md").write_bytes(b"\xff\xfe\x00")
    assert "The report cannot be read" in reproduction_html(tmp_path)


def test_the_packages_report_is_there_at_once_as_it_was_written(monkeypatch):
    from flowsteer.measure import bootstrap

    def computed(*arguments):
        raise AssertionError("the screen computes what the report says already")

    monkeypatch.setattr(bootstrap, "crossed_bootstrap", computed)
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", computed)
    text = results_html.__wrapped__(RESULTS, REPRODUCTION)
    plots = list((REPRODUCTION / "plots").glob("*.svg"))
    assert len(plots) >= 6
    assert text.count('class="fs-light" src="data:image/svg') == len(plots)
    report = (REPRODUCTION / "report.md").read_text(encoding="utf-8")
    number = re.search(r"PeRFlow < all \(FlowSteer\) in EmojiEval: (\S+)", report)[1]
    assert number in text


def test_written_figures_change_their_ink_with_the_theme():
    path = REPRODUCTION / "plots" / "ablation.svg"
    html = written_figure_html(path, "the ablation")
    light, dark = (
        base64.b64decode(data).decode()
        for data in re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', html)
    )
    ink = [THEMES[name]["text.color"] for name in ("light", "dark")]
    assert ink[0] in light and ink[1] not in light
    assert ink[1] in dark and ink[0] not in dark
    assert "fill: #ffffff" not in light + dark


def test_every_measured_row_is_shown():
    teacher = json.loads((RESULTS / "teacher.json").read_text(encoding="utf-8"))
    text = measured_html(RESULTS)
    assert text.count("<tr>") >= 1 + 1 + len(teacher["undistilled"])
    assert "student flowsteer" in text
    assert f"{teacher['teacher']['emoji_eval']['overall']['mean']:.3f}" in text


def test_the_papers_numbers_are_named_as_the_papers():
    text = paper_html()
    assert "not measured here" in text and text.count("(its numbers)") >= 2
    assert ".6859" in text and "28.60" in text


def test_markdown_of_reports():
    text = """# Title

Some **bold** and *soft* `code` <script>
on two lines.

| name | a \\* |
| --- | ---: |
| x | 1.5 |

- one
- two

![plot](plots/plot.svg)
"""
    shown = markdown_html(text, lambda name, address: f"[{name}:{address}]")
    assert "<h2>Title</h2>" in shown
    assert "<strong>bold</strong> and <em>soft</em> <code>code</code> &lt;script&gt; on" in shown
    assert "<caption>Title</caption>" in shown and '<td class="fs-number">1.5</td>' in shown
    assert "<ul><li>one</li><li>two</li></ul>" in shown
    assert "[plot:plots/plot.svg]" in shown
