import json
import shutil

import pytest

from flowsteer import students
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


def test_bad_info_files_are_named(tmp_path, student_info):
    with pytest.raises(ValueError, match="no student"):
        StudentInfo.load(tmp_path)
    path = tmp_path / INFO_FILE
    for content, problem in [
        ("{", "JSON"),
        ("[]", "object"),
        ('{"method": "ota"}', "incomplete"),
        ('{"metod": "ota"}', "unknown fields metod"),
    ]:
        path.write_text(content)
        with pytest.raises(ValueError, match=problem):
            StudentInfo.load(tmp_path)


def test_none_is_the_teacher():
    assert find_student(None) is None
    assert find_student("none") is None
    assert find_student("None") is None


@pytest.mark.parametrize("name", ["nobody", "", "/no/such/folder", "some/hub-id"])
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
