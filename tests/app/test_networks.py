"""What visitors can choose: keys, never paths; and links that read back."""

from __future__ import annotations

import math

import pytest

from flowsteer.app.links import Link
from flowsteer.app.networks import Choices, link_text, networks_for
from flowsteer.app.requests import (
    MOST_CALLS,
    check_grid_numbers,
    compare_request,
    planned_nfe,
    schedule_request,
    trajectory_request,
)
from flowsteer.comparing import COMPARE_COLUMNS
from flowsteer.students import bundled_students


@pytest.fixture(scope="module")
def choices(lora_student):
    return Choices(networks_for("some/model", [str(lora_student)]))


def test_the_bundled_model_has_all_that_the_package_ships():
    networks = networks_for("emoji", [])
    assert list(networks) == ["teacher", *bundled_students()]
    assert list(networks_for("emoji", ["none"])) == ["teacher"]
    assert list(networks_for("some/model", [])) == ["teacher"]


def test_a_given_student_comes_first_and_its_path_is_no_key(lora_student, full_student):
    paths = [str(lora_student), str(full_student)]
    networks = networks_for("emoji", paths)
    assert list(networks)[:3] == ["teacher", "lora", "full"]
    assert networks["lora"].student == str(lora_student)
    assert "/" not in "".join(networks)
    with pytest.raises(ValueError, match="unknown"):
        networks_for("emoji", ["nobody"])


def test_two_students_of_one_name_get_two_keys(lora_student, tmp_path):
    import shutil

    twin = tmp_path / "lora"
    shutil.copytree(lora_student, twin)
    networks = networks_for("x/y", [str(lora_student), str(twin)])
    assert list(networks) == ["teacher", "lora", "lora_2"]


def test_the_default_columns_are_those_of_the_command(choices):
    default = choices.default()
    wanted = [
        (c.settings.num_inference_steps, c.settings.scheduler, c.settings.guidance_scale)
        for c in COMPARE_COLUMNS
    ]
    assert wanted == [
        (c.settings.num_inference_steps, c.settings.scheduler, c.settings.guidance_scale)
        for c in default
    ]
    assert len(Choices(networks_for("x/y", [])).default()) == len(COMPARE_COLUMNS) - 1


def test_links_read_back_what_they_say(choices):
    for text in choices.presets().values():
        columns = choices.parse(text)
        assert link_text(columns) == text
        assert choices.parse(link_text(columns)) == columns
    (column,) = choices.parse("lora-8-stock-2.5")  # no model is loaded that it might not fit
    assert column.settings.guidance_scale == 2.5 and column.settings.scheduler == "stock"
    assert column.title == "Student lora, 8 steps, stock grid, guidance 2.5"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "columns = None must be text"),
        (["teacher"], "must be text"),
        ("", "0 entries"),
        ("teacher", "NETWORK-STEPS-SCHEDULER-GUIDANCE"),
        ("/etc/passwd-4-rectified-1", "network = '/etc/passwd' is unknown"),
        ("../lora-4-rectified-1", "is unknown"),
        ("teacher-0-rectified-1", "steps = 0 must be a whole number from 1 to 100"),
        ("teacher-101-rectified-1", "steps = 101"),
        ("teacher-x-rectified-1", "steps = 'x'"),
        ("teacher-4-euler-1", "scheduler = 'euler' is unknown"),
        ("teacher-4-rectified-nan", "guidance_scale = nan"),
        ("teacher-4-rectified-0.5", "guidance_scale = 0.5"),
        ("teacher-4-rectified-x", "guidance_scale = 'x'"),
        ("teacher-4-rectified-1,teacher-4-rectified-1", "is there twice"),
        (",".join(f"teacher-{n}-rectified-1" for n in range(1, 8)), "columns has 7 entries"),
    ],
)
def test_bad_columns_in_a_link_are_explained(choices, text, message):
    with pytest.raises(ValueError, match=message):
        choices.parse(text)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("teacher", "must be a list"),
        ([None], "must be an object"),
        ([{"steps": 4}], "must be an object with network"),
        ([{"network": "teacher", "path": "/"}], "must be an object"),
        ([{"network": ["teacher"]}], "network = \\['teacher'\\] is unknown"),
        ([{"network": "teacher", "steps": None}], "steps = None"),
        ([{"network": "teacher", "steps": 4.5}], "steps = 4.5"),
        ([{"network": "teacher", "steps": True}], "steps = True"),
        ([{"network": "teacher", "guidance": math.nan}], "guidance_scale = nan"),
        ([{"network": "teacher", "guidance": 10**400}], "guidance_scale = 1000"),
        ([{"network": "teacher", "guidance": [1]}], "guidance_scale = \\[1\\]"),
        ([{"network": "teacher", "scheduler": None}], "scheduler = None"),
    ],
)
def test_bad_columns_from_a_program_are_explained(choices, rows, message):
    with pytest.raises(ValueError, match=message):
        choices.columns(rows)


def test_a_program_may_leave_out_what_a_network_knows(choices):
    (teacher, student) = choices.columns([{"network": "teacher"}, {"network": "lora"}])
    assert teacher.settings.num_inference_steps == 28
    assert student.settings.num_inference_steps == 4


def test_steps_that_miss_a_students_edges_are_refused_before_anything_is_drawn(lora_student):
    choices = Choices(networks_for("some/model", [str(lora_student)]))
    assert choices.parse("lora-2-rectified-1")[0].key == "lora-2-rectified-1"  # no shift known yet
    choices.shift = 3.0
    for text in ("lora-2-rectified-1", "lora-4-stock-1", "lora-6-rectified-1"):
        with pytest.raises(ValueError, match="edge.* use 4, 8, 12, ... rectified steps") as caught:
            choices.parse(text)
        assert "\n" not in str(caught.value) and "mismatch" in str(caught.value)
    for text in ("lora-4-rectified-1", "lora-8-rectified-1", "teacher-2-stock-1"):
        assert choices.parse(text)[0].key == text
    choices.shift = 5.0  # another model's: the same steps land elsewhere
    with pytest.raises(ValueError, match="edge"):
        choices.parse("lora-4-rectified-1")


def test_a_mismatch_is_drawn_where_it_is_asked_for_by_name(lora_student):
    choices = Choices(networks_for("some/model", [str(lora_student)]))
    early = choices.parse("lora-2-rectified_mismatch-1")
    choices.shift = 3.0
    (column,) = choices.parse("lora-2-rectified_mismatch-1")
    assert [column] == early and column.settings.allow_grid_mismatch
    assert column.title == "Student lora, 2 steps, grid mismatch"
    row = {"network": "lora", "steps": 2, "guidance": 1, "allow_grid_mismatch": True}
    assert choices.columns([row]) == [column]
    (fitting,) = choices.parse("lora-4-rectified_mismatch-1")
    assert fitting.key == "lora-4-rectified-1"  # nothing to allow
    with pytest.raises(ValueError, match="allow_grid_mismatch = 'yes'"):
        choices.columns([{"network": "lora", "steps": 2, "allow_grid_mismatch": "yes"}])


def test_requests_are_bounded_together(choices):
    columns = choices.parse("teacher-100-rectified-7,teacher-99-rectified-7")
    assert [planned_nfe(column) for column in columns] == [200, 198]
    request = compare_request(choices, " a fox ", 3.0, 5.0, columns)
    assert request.prompt == "a fox" and request.seeds == (3, 4, 5, 6, 7)
    with pytest.raises(ValueError, match=f"the limit is {MOST_CALLS:,}"):
        compare_request(choices, "a fox", 3, 8, columns)
    for noises in (0, 9, 1.5, None, "2", math.nan, math.inf):
        with pytest.raises(ValueError, match="noises = "):
            compare_request(choices, "a fox", 3, noises, columns[:1])
    with pytest.raises(ValueError, match="seed = 4294967296"):
        compare_request(choices, "a fox", 2**32 - 1, 2, columns[:1])


def test_trajectory_and_schedule_requests(choices):
    request = trajectory_request(choices, "a fox", 0, ["lora", "teacher", "lora"])
    assert [c.key for c in request.columns] == [
        "teacher-28-rectified-auto",
        "lora-4-rectified-1",
        "teacher-4-rectified-1",
    ]
    for bad in ("lora", None, [None], ["nobody"], ["lora"] * 13):
        with pytest.raises(ValueError, match="network"):
            trajectory_request(choices, "a fox", 0, bad)
    assert schedule_request(choices, "a fox", 0, 3, 4).shift == 3.0
    for shift in (0, -1, math.nan, math.inf, None, "3", True, [3], 10**400, -(10**400)):
        with pytest.raises(ValueError, match="shift = "):
            check_grid_numbers(shift, 4)
    for steps in (0, 101, None, "4", 2.5):
        with pytest.raises(ValueError, match="steps = "):
            check_grid_numbers(3, steps)


def test_a_link_gives_what_is_right_in_it(choices):
    link = Link.read("?prompt=a+%F0%9F%90%A8&seed=7&noises=2&columns=lora-4-rectified-1", choices)
    assert (link.prompt, link.seed, link.noises) == ("a 🐨", 7, 2)
    assert link.columns is not None and link.columns[0].key == "lora-4-rectified-1"
    wrong = "?prompt=&seed=-1&noises=99&columns=../x-4-rectified-1&screen=%3Cscript%3E"
    assert Link.read(wrong, choices) == Link()
    assert Link.read("?screen=blind", choices).screen == "blind"
    for nonsense in (None, 4, [], "?" + "a=1&" * 50, "x" * 10000):
        assert Link.read(nonsense, choices) == Link()
