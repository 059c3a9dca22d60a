from __future__ import annotations

import re

import pytest

from flowsteer.app.gpu import IS_LENT, callback, on_gpu
from flowsteer.app.launch import main
from flowsteer.app.screens.base import HERE
from flowsteer.app.theme import STYLE_SHEET, flowsteer_theme


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "nope"], "model = 'nope' is unknown"),
        (["--student", "nope"], "student = 'nope' is unknown"),
        (["--student", "none", "--student", "nope", "--model", "nope"], "model = 'nope'"),
        (["--device", "nope"], "device = 'nope' is not available"),
    ],
)
def test_bad_options_end_in_one_line_and_code_2(capsys, arguments, message):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"error: {message}")
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_a_model_that_cannot_be_drawn_is_refused_at_the_start(tmp_path, capsys):
    """By its model_index.json: the folder has nothing else."""
    (tmp_path / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    assert main(["--model", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert f"model = {str(tmp_path)!r} has the class FluxPipeline" in captured.err
    assert captured.err.count("\n") == 1 and captured.out == ""


def test_theme_style_sheet_and_script_name_no_address():
    theme = flowsteer_theme()
    assert theme._stylesheets == []
    style = STYLE_SHEET.read_text(encoding="utf-8")
    script = (HERE / "app.js").read_text(encoding="utf-8")
    for text in (theme._get_theme_css(), style):
        assert not re.search(r"url\(\s*['\"]?(https?:)?//|@import", text)
    assert not re.search(r"https?://|fetch\(|import\s*\(|<script", script)


def test_away_from_zerogpu_the_decorator_does_nothing():
    def work():
        return 1

    assert not IS_LENT
    assert on_gpu(work) is work
    assert callback(work) is work
