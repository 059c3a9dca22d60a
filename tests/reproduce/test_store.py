"""The folder: whole files or none, and no silent mixing of settings."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from flowsteer.files import write_text
from flowsteer.reproduce.store import Store, difference

RECORD = {"name": "a", "table": "3", "config": {"kind": "x", "flags": {"rate": 0.5}}, "results": {}}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab"), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "out")


def test_what_was_written_is_read_again(store):
    assert not store.has("a") and store.read_all() == {}
    store.write(RECORD, Image.new("RGB", (4, 2)))
    assert store.has("a") and store.read("a") == RECORD and store.read_all() == {"a": RECORD}
    assert Image.open(store.picture("a")).size == (4, 2)
    assert sorted(path.name for path in store.cells.iterdir()) == ["a.json", "a.png"]


def test_a_write_that_fails_leaves_the_old_file(store):
    store.write(RECORD)
    with pytest.raises(TypeError):
        store.write(RECORD | {"results": {"bad": object()}})
    assert store.read("a") == RECORD
    assert [path.name for path in store.cells.iterdir()] == ["a.json"]


def test_text_is_replaced_at_once(tmp_path):
    path = tmp_path / "deep" / "file.md"
    write_text(path, "one")
    write_text(path, "two")
    assert path.read_text() == "two" and [p.name for p in path.parent.iterdir()] == ["file.md"]


def test_other_settings_are_refused_by_field_and_value(store):
    store.write(RECORD)
    store.check("a", {"kind": "x", "flags": {"rate": 0.5}})
    with pytest.raises(ValueError) as error:
        store.check("a", {"kind": "x", "flags": {"rate": 0.25}})
    message = str(error.value)
    assert "flags.rate = 0.5, and 0.25 is wanted" in message
    assert "a.json" in message and "--output_dir" in message and "delete" in message
    with pytest.raises(ValueError, match=r"flags.more = \(absent\), and 1 is wanted"):
        store.check("a", {"kind": "x", "flags": {"rate": 0.5, "more": 1}})


def test_tuples_in_a_config_are_the_lists_of_its_file(store):
    store.write(RECORD | {"config": {"ways": [[4, "stock"]]}})
    store.check("a", {"ways": ((4, "stock"),)})


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"name": "a"}', json.dumps(RECORD)])
def test_a_damaged_or_renamed_file_is_refused(store, text):
    write_text(store.cells / "b.json", text)
    with pytest.raises(ValueError, match=r"b\.json .*delete it"):
        store.read("b")


def test_a_student_is_kept_and_its_checkpoints_are_not(store):
    for content in ("old", "new"):  # a cell that is made again replaces its student
        folder = store.run("a") / "student"
        write_text(folder / "weights", content)
        write_text(store.run("a") / "checkpoint-1" / "model", "big")
        store.keep_student("a")
        store.keep_student("a")  # killed before its JSON was written: nothing left to move
        store.drop_run("a")
        assert (store.students / "a" / "weights").read_text() == content
        assert not store.run("a").exists()


@given(json_values, json_values)
@example({}, {"": None})
def test_values_differ_where_they_are_not_equal(one, two):
    assert difference(one, one) is None
    found = difference({"x": one}, {"x": two})
    assert (found is None) == (one == two)
    if found:
        field, old, new = found
        assert field.split(".")[0] == "x" and old != new
