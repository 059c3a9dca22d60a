from __future__ import annotations

import re

import pytest

from flowsteer.app.launch import main
from flowsteer.app.theme import STYLE_SHEET, flowsteer_theme


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "nope"], "model = 'nope' is unknown"),
        (["--student", "nope"], "student = 'nope' is unknown"),
        (["--device", "nope"], "device = 'nope' is not available"),
    ],
)
def test_bad_options_end_in_one_line_and_code_2(capsys, arguments, message):
    assert main(["--student", "none", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"error: {message}")
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_the_theme_and_the_style_sheet_name_no_address():
    theme = flowsteer_theme()
    assert theme._stylesheets == []
    for text in (theme._get_theme_css(), STYLE_SHEET.read_text(encoding="utf-8")):
        assert not re.search(r"url\(\s*['\"]?(https?:)?//|@import", text)
