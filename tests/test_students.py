import json
import math
import os
import shutil

import pytest

from flowsteer import students
from flowsteer.cli import main
from flowsteer.flow.grids import rectified_grid, stock_grid
from flowsteer.students import (
    INFO_FILE,
    StudentInfo,
    bundled_students,
    find_student,
    student_title,
)


def test_info_survives_a_round_trip(tmp_path, student_info):
    student_info.save(tmp_path)
    assert StudentInfo.load(tmp_path) == student_info
    assert [path.name for path in tmp_path.iterdir()] == [INFO_FILE]


def test_info_of_lists_and_ints_becomes_tuples_of_floats():
    info = StudentInfo("ota", "emoji", [1, 0.5, 0], 3, guidance_range=[2, 4])
    assert info.edges == (1.0, 0.5, 0.0)
    assert info.guidance_range == (2.0, 4.0)
    assert info.num_inference_steps == 2


def test_edges_must_descend_from_one_to_zero():
    with pytest.raises(ValueError, match="edges"):
        StudentInfo("ota", "emoji", (1, 0.5, 0.7, 0), 3.0)


@pytest.mark.parametrize("steps", [4, 8, 12])
def test_grids_with_all_edges_fit(student_info, steps):
    student_info.check_grid(rectified_grid(steps, 3.0))


@pytest.mark.parametrize(
    "grid", [rectified_grid(5, 3.0), rectified_grid(2, 3.0), stock_grid(4, 3.0)]
)
def test_other_grids_are_refused_with_both_named(student_info, grid):
    assert not student_info.fits(grid)
    with pytest.raises(ValueError, match="allow_grid_mismatch") as caught:
        student_info.check_grid(grid)
    assert "[1, 0.9, 0.75, 0.5, 0]" in str(caught.value)
    assert f"{grid[1].item():.4f}".rstrip("0") in str(caught.value)


GOOD = {"method": "ota", "teacher": "emoji", "edges": [1, 0.5, 0], "shift": 3}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", "not readable as JSON"),
        ("[" * 100_000, "nested deeper"),
        ("[]", "must hold a JSON object"),
        (GOOD | {"edges": ...}, "incomplete: it lacks edges"),
        ({"metod": "ota"}, "incomplete: it lacks method, teacher, edges, shift"),
        (GOOD | {"edges": "10"}, "edges = '10' must be a list of 2 to 1,001 numbers"),
        (GOOD | {"edges": None}, "edges = None must be a list"),
        (GOOD | {"edges": {"1": 0}}, "edges = .* must be a list"),
        (GOOD | {"edges": [1, "a", 0]}, r"edges\[1\] = 'a' must be a number from 0 to 1"),
        (GOOD | {"edges": [1, "0.5", 0]}, r"edges\[1\] = '0.5' must be a number"),
        (GOOD | {"edges": [True, 0]}, r"edges\[0\] = True"),
        (GOOD | {"edges": [1, [0.5], 0]}, r"edges\[1\]"),
        (GOOD | {"edges": [1]}, "2 to 1,001 numbers, not 1"),
        (GOOD | {"edges": [1, *[0.5] * 100_000, 0]}, "numbers, not 100,002"),
        (GOOD | {"edges": [1, *[0.5] * 900, 0]}, "must fall strictly from 1 to 0"),
        (GOOD | {"edges": [1, 0.5, 0.7, 0]}, "must fall strictly"),
        (GOOD | {"edges": [0.9, 0]}, "must fall strictly"),
        (GOOD | {"edges": [1, -0.5, 0]}, r"edges\[1\] = -0.5"),
        (GOOD | {"edges": [1, 10**40, 0]}, "a number of 41 digits"),
        (json.dumps(GOOD | {"edges": [1, math.nan, 0]}), "NaN is no number"),
        (GOOD | {"shift": "3"}, "shift = '3' must be a number"),
        (GOOD | {"shift": 0}, "shift = 0 must be a number from 0.001"),
        (GOOD | {"shift": None}, "shift = None"),
        (GOOD | {"guidance_range": 4}, "guidance_range = 4 must be a list of 2 numbers"),
        (GOOD | {"guidance_range": [2, 4, 7]}, "a list of 2 numbers, not 3"),
        (GOOD | {"guidance_range": ["low", 4]}, r"guidance_range\[0\] = 'low'"),
        (GOOD | {"guidance_range": [4, 2]}, "must rise"),
        (GOOD | {"guidance_range": [2, 1e300]}, r"guidance_range\[1\] = 1e\+300"),
        (GOOD | {"lora_rank": True}, "lora_rank = True must be a whole number from 1"),
        (GOOD | {"lora_rank": 4.0}, "lora_rank = 4.0"),
        (GOOD | {"lora_rank": 10**9}, "lora_rank = 1000000000"),
        (GOOD | {"lora_alpha": 0}, "lora_alpha = 0 must be a number from 1e-06"),
        (GOOD | {"lora_alpha": -8}, "lora_alpha = -8"),
        (GOOD | {"lora_alpha": 1e30}, "lora_alpha = 1e\\+30"),
        (json.dumps(GOOD | {"lora_alpha": math.nan}), "NaN is no number"),
        (GOOD | {"steps": "700"}, "steps = '700' must be a whole number"),
        (GOOD | {"steps": [700]}, "steps = "),
        (GOOD | {"steps": None}, "steps = None"),
        (GOOD | {"steps": -1}, "steps = -1"),
        (GOOD | {"method": 3}, "method = 3 must be text"),
        (GOOD | {"teacher": None}, "teacher = None must be text"),
        (GOOD | {"settings": []}, r"settings = \[\] must be an object"),
        (GOOD | {"settings": "x"}, "settings = 'x' must be an object"),
        (GOOD | {"versions": None}, "versions = None must be an object"),
        (GOOD | {"versions": {"torch": 2}}, "versions has 2, which must be text"),
    ],
)
def test_what_is_wrong_in_an_info_file_is_said_with_its_name(tmp_path, content, problem):
    path = tmp_path / INFO_FILE
    if isinstance(content, dict):
        kept = {name: value for name, value in content.items() if value is not ...}
        content = json.dumps(kept)
    path.write_text(content)
    with pytest.raises(ValueError, match=problem) as caught:
        StudentInfo.load(tmp_path)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message and len(message) < len(str(path)) + 250


def test_a_missing_info_file_and_one_that_is_no_file(tmp_path):
    with pytest.raises(ValueError, match="is no student: it has no flowsteer.json"):
        StudentInfo.load(tmp_path)
    (tmp_path / INFO_FILE).mkdir()
    with pytest.raises(ValueError, match=f"{INFO_FILE} is a folder; give a student's"):
        StudentInfo.load(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a POSIX system")
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_pipe_or_device_as_info_file_is_refused_by_the_command(tmp_path, kind, capsys):
    path = tmp_path / INFO_FILE
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    assert main(["generate", "a koala", "--student", str(tmp_path)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and str(path) in lines[0] and kind in lines[0]


def test_fields_of_a_newer_version_are_left_aside_with_a_warning(tmp_path):
    (tmp_path / INFO_FILE).write_text(json.dumps(GOOD | {"colour": "red", "size": 3}))
    with pytest.warns(UserWarning, match="2 fields that this flowsteer does not know.*colour"):
        info = StudentInfo.load(tmp_path)
    assert info == StudentInfo("ota", "emoji", (1, 0.5, 0), 3)


def test_none_is_the_teacher():
    assert find_student(None) is None
    assert find_student("none") is None
    assert find_student("None") is None


@pytest.mark.parametrize(
    "name", ["nobody", "", "/no/such/folder", "some/hub-id", "a\0b", "x" * 5000, "a\nb"]
)
def test_unknown_students_list_what_there_is(name):
    with pytest.raises(ValueError, match=r"student = .* is unknown; use one of none"):
        find_student(name)


def test_students_are_found_by_path(lora_student, full_student, student_info):
    found = find_student(str(lora_student))
    assert found is not None
    assert (found.is_lora, found.info) == (True, student_info)
    full = find_student(full_student)
    assert full is not None
    assert not full.is_lora


def test_a_runs_folder_stands_for_its_student(tmp_path, lora_student):
    run = tmp_path / "mine"
    shutil.copytree(lora_student, run / "student")
    (run / "log.jsonl").write_text("")
    assert find_student(run).folder == find_student(run / "student").folder == run / "student"
    assert find_student(run).name == str(run)
    # a student that holds something called like that is itself
    shutil.copytree(lora_student, tmp_path / "outer")
    shutil.copytree(lora_student, tmp_path / "outer" / "student")
    assert find_student(tmp_path / "outer").folder == tmp_path / "outer"


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("flowsteer", "flowsteer"),
        ("out/mine", "mine"),
        ("out/mine/student", "mine"),
        ("out/mine/student/", "mine"),
        ("out/student/student", "out"),
        ("/student", "student"),
    ],
)
def test_a_student_is_called_by_its_run(name, title):
    assert student_title(name) == title


def test_of_a_student_in_the_present_folder_the_folder_names_it(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path / "mine")
    assert student_title("student") == student_title(".") == "mine"


def test_a_student_without_weights_is_refused(tmp_path, student_info):
    student_info.save(tmp_path)
    with pytest.raises(ValueError, match="no weights"):
        find_student(tmp_path)


def test_bundled_students_are_found_by_name(tmp_path, monkeypatch, lora_student):
    (tmp_path / "mine").symlink_to(lora_student)
    (tmp_path / "not-a-student").mkdir()
    monkeypatch.setattr(students, "BUNDLED_STUDENTS", tmp_path)
    assert bundled_students() == ("mine",)
    found = find_student("mine")
    assert found is not None
    assert found.folder == tmp_path / "mine"
    with pytest.raises(ValueError, match="none, mine"):
        find_student("yours")


@pytest.mark.parametrize("name", bundled_students())
def test_every_bundled_student_describes_itself(name):
    student = find_student(name)
    assert student is not None
    assert student.info.teacher == "emoji"
    written = json.loads((student.folder / INFO_FILE).read_text())
    assert written["versions"].keys() >= {"flowsteer", "diffusers", "torch"}
