"""The tables in README and model cards are the shipped records, to the letter."""

import json
import re
from pathlib import Path

import pytest

from flowsteer.emoji.prompts import load_prompts
from flowsteer.evaluation.report import RESULTS, compare_lines, summary, table
from flowsteer.evaluation.study import Result
from flowsteer.reproduce.cells import plan
from flowsteer.reproduce.presets import find_preset
from flowsteer.reproduce.report import done_section, readme_table, summary_lines
from flowsteer.reproduce.store import Store
from flowsteer.schedule_families import families_table
from flowsteer.students import bundled_students

ROOT = Path(__file__).parents[1]


def record(name):
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def block(path, name):
    text = (ROOT / path).read_text(encoding="utf-8")
    found = re.search(rf"<!-- {name} -->\n(.*)\n<!-- /{name} -->", text, re.DOTALL)
    assert found, f"{path} has no block {name!r}"
    return found[1].strip()


def rows(values):
    return [Result.from_json(value, load_prompts("test")) for value in values]


def test_readme():
    students = {name: record(name) for name in bundled_students()}
    assert block("README.md", "results") == summary(record("teacher"), students)


def test_reproduction():
    """README and report say what the shipped cells say, and no cell is missing."""
    records = Store(RESULTS / "reproduction").read_all()
    assert block("README.md", "reproduction") == readme_table(records)
    report = (RESULTS / "reproduction" / "report.md").read_text(encoding="utf-8")
    assert "\n".join(summary_lines(records)) in report
    planned = plan(find_preset("full"))
    assert {cell.name for cell in planned} == set(records)
    assert "\n".join(done_section(records, planned)) in report


def test_families():
    assert block("README.md", "families") == families_table(4)


def test_teacher_card():
    teacher = record("teacher")
    everything = [teacher["teacher"], teacher["stock_default"], *teacher["undistilled"]]
    expected = table(rows(everything))
    assert block("flowsteer/emoji/weights/README.md", "teacher") == expected


@pytest.mark.parametrize("name", bundled_students())
def test_student_card(name):
    student = record(name)
    expected = table(rows([student["teacher"], student["student"]]))
    expected += "\n\n" + compare_lines(student["against"])
    assert block(f"flowsteer/emoji/students/{name}/README.md", "student") == expected


@pytest.mark.parametrize("name", ["teacher", *bundled_students()])
def test_records_are_of_all_test_prompts(name):
    values = record(name)
    assert values["num_prompts"] == len(load_prompts("test"))
    for row in values["undistilled"]:
        mean = sum(map(int, row["correct"])) / len(row["correct"])
        assert mean == pytest.approx(row["emoji_eval"]["overall"]["mean"], abs=1e-9)
