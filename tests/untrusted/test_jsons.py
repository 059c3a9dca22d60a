"""JSON is what `json` reads, or a one-line error: nothing in between, at any depth or length."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowsteer.untrusted import parse_json, read_json

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text("ab\"\\[{"), inner),
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(values, st.booleans())
def test_what_python_writes_is_read_back(value, ascii_only):
    assert parse_json(json.dumps(value, ensure_ascii=ascii_only), "x") == value


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[" * 100_000, "nested deeper than 64"),
        ('{"a":' * 100_000, "nested deeper than 64"),
        ('"' + "[" * 100, "Unterminated string"),
        ("1" * 400, "a number of 400 digits, '1111"),
        ("-" + "1" * 5000, "a number of 5,001 digits"),
        ("1e400", "the number '1e400' is too large"),
        ("NaN", "NaN is no number"),
        ("[-Infinity]", "-Infinity is no number"),
        ('{"a": 1, "b": 2, "a": 1}', "'a' stands in it twice"),
        ('"\\ud800"', "half a character"),
        ("{", "line 1, column 2"),
        ("", "Expecting value"),
    ],
)
def test_what_is_refused(text, problem):
    with pytest.raises(ValueError, match=f"the file .*{problem}") as caught:
        parse_json(text, "the file")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 200


def test_brackets_in_strings_and_whole_characters_are_allowed():
    assert parse_json(json.dumps(["[" * 1000 + '\\"', "\U0001f428"]), "x")[1] == "\U0001f428"
    assert parse_json("[" * 64 + "]" * 64, "x")


def test_a_scan_of_quotes_takes_time_in_proportion_to_their_number():
    """A pattern that goes back would need hours for this."""
    with pytest.raises(ValueError, match="not readable as JSON"):
        parse_json('"' + '\\"' * 2_000_000, "x")


def test_a_file_is_named_and_its_mark_is_skipped(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b"\xef\xbb\xbf[1]")
    assert read_json(path, "a list") == [1]
    path.write_text("[")
    with pytest.raises(ValueError, match=f"{path} is not readable as JSON"):
        read_json(path, "a list")
