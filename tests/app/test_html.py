"""The pages' pieces of HTML: pure functions of data, whatever a visitor typed escaped."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import replace

import pytest
import torch
from PIL import Image

from flowsteer.app.desk import Waiting
from flowsteer.app.html import escape, png_data_uri, short_sigmas, table_html, waiting_html
from flowsteer.app.networks import Choices, networks_for
from flowsteer.app.requests import compare_request
from flowsteer.app.screens.columns_html import columns_form
from flowsteer.app.screens.compare_html import (
    card_html,
    ending_html,
    progress_html,
)
from flowsteer.app.screens.compare_table import comparison_file, figures_table, wipe_html
from flowsteer.app.screens.scheduler import grids_html
from flowsteer.app.snapshots import Comparison
from flowsteer.app.verdicts import Verdict
from flowsteer.comparing import Card

HOSTILE = "koala <img src=x onerror='alert(1)'> ${1+1} {{value}}"
FULL, STUDENT = "teacher-28-rectified-auto", "lora-4-rectified-1"


@pytest.fixture
def choices(lora_student):
    return Choices(networks_for("x/y", [str(lora_student)]))


def make_card(column, seed, seconds=1.0):
    settings = column.settings
    scale = settings.guidance_scale or (1.0 if settings.student else 3.0)
    steps = settings.num_inference_steps
    return Card(
        column=replace(column, settings=replace(settings, guidance_scale=scale)),
        image=Image.new("RGB", (8, 8), (10, 200, 30)),
        latents=torch.zeros(1, 2, 2),
        nfe=steps * (2 if scale > 1 else 1),
        seconds=seconds,
        sigmas=tuple(torch.linspace(1, 0, steps + 1).tolist()),
        seed=seed,
    )


@pytest.fixture
def comparison(choices):
    """Two columns from two noises, complete."""
    asked = compare_request(choices, "a fox", 5, 2, choices.parse(f"{FULL},{STUDENT}"))
    cards, distances = {}, {}
    for column, seconds, distance in zip(asked.columns, (10.0, 1.0), (0.0, 0.25), strict=True):
        for seed in asked.seeds:
            cards[column.key, seed] = make_card(column, seed, seconds)
            distances[column.key, seed] = distance + 0.1 * (seed - 5) * (distance > 0)
    return Comparison(asked, cards, {}, distances, frozenset([FULL]))


def test_escape_leaves_nothing_that_html_or_a_template_reads():
    assert not set("<>\"'${}") & set(escape("<b a=\"1\" b='2'>${x} {{y}}</b>"))
    assert escape(4) == "4"


def test_short_sigmas_keeps_short_grids_and_cuts_long_ones():
    assert short_sigmas([1, 0.8577, 0.6022, 0.0089, 0]) == "1 → 0.858 → 0.602 → 0.009 → 0"
    assert short_sigmas([1, 0.8, 0.7, 0.5, 0.4, 0.2, 0]) == "1 → 0.8 → … → 0.2 → 0"


def test_a_data_uri_holds_the_exact_pixels_and_the_record():
    image = Image.effect_noise((16, 16), 80).convert("RGB")
    uri = png_data_uri(image, {"prompt": "ä"})
    data = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
    read = Image.open(io.BytesIO(data))
    assert read.tobytes() == image.tobytes()
    assert json.loads(read.info["flowsteer"]) == {"prompt": "ä"}


def test_the_place_in_line_is_told():
    assert "number 4 in line" in waiting_html(Waiting(3), True)
    assert "1 request is before" in waiting_html(Waiting(1), True)
    assert "loading" in waiting_html(Waiting(1), False)


def test_what_a_visitor_typed_is_escaped_everywhere(comparison):
    asked = replace(comparison.request, prompt=HOSTILE)
    hostile = replace(comparison, request=asked)
    column = asked.columns[1]
    drawing = replace(hostile, drawing=(column.key, 5), cards={})
    for text in (
        card_html(hostile, column, "waiting", True),
        ending_html(hostile),
        progress_html(replace(hostile, drawing=None)),
        progress_html(drawing),
        figures_table(hostile, "x/y", True),
        wipe_html(hostile),
    ):
        assert "<img src=x" not in text and "${" not in text and "{{" not in text


def test_a_finished_card_says_means_over_its_noises(comparison):
    text = card_html(comparison, comparison.request.columns[1], "waiting", False)
    for part in (">4<", ">none<", ">0.300<", "1.00", 'data-role="student"', 'data-state="done"'):
        assert part in text
    assert text.count("<img") == 2 and "seed 6" in text
    assert "Detector" not in text and "mismatch" not in text
    assert "reference</small>" in card_html(comparison, comparison.request.columns[0], "done", 0)


def test_a_mismatch_is_labelled(comparison):
    place = (STUDENT, 5)
    cards = dict(comparison.cards) | {place: replace(comparison.cards[place], grid_mismatch=True)}
    text = card_html(replace(comparison, cards=cards), comparison.request.columns[1], "done", False)
    assert "Grid mismatch" in text


def test_verdicts_are_counted_told_and_left_open(comparison):
    right = Verdict(True, None, ("3d fox",), ("blue",))
    wrong = Verdict(False, "0 of fox, not 1", (), ("blue", "pink"))
    unread = Verdict(None, None, ("3d fox",), ("blue",))
    column = comparison.request.columns[1]
    both = replace(comparison, verdicts={(STUDENT, 5): right, (STUDENT, 6): wrong})
    assert "1 of 2 as asked" in card_html(both, column, "done", True)
    table = figures_table(both, "x/y", True)
    assert "As asked; sees 3d fox on blue" in table
    assert "Wrong: 0 of fox, not 1; sees nothing on blue to pink" in table
    open_ = replace(comparison, verdicts={(STUDENT, 5): unread})
    assert "Sees 3d fox on blue" in card_html(open_, column, "done", True)
    assert "fs-badge" not in card_html(open_, column, "done", True)


@pytest.mark.parametrize(
    ("state", "drawing", "words"),
    [
        ("empty", None, 'data-state="empty"'),
        ("waiting", None, "Waiting"),
        ("waiting", (FULL, 5), "Drawing"),
        ("stopped", (FULL, 5), "Stopped"),
    ],
)
def test_a_card_without_a_picture_says_why(comparison, state, drawing, words):
    empty = Comparison(comparison.request, drawing=drawing)
    text = card_html(empty, empty.request.columns[0], state, True)
    assert words in text and "<img" not in text


def test_the_status_line_counts_compares_and_admits_a_stop(comparison):
    some = replace(
        comparison, cards={(STUDENT, 5): comparison.cards[STUDENT, 5]}, drawing=(FULL, 5)
    )
    running = progress_html(some)
    assert "1 of 4 pictures" in running and "Teacher, 28 steps" in running
    assert "which no column shows" in progress_html(replace(some, drawing=("", 5)))
    assert "Stopped after 1 of 4" in ending_html(some)
    done = ending_html(comparison)
    assert "10.0 times faster" in done and "Seeds 5 to 6" in done and "a fox" in done
    alone = replace(comparison, references=frozenset())
    assert "All pictures are ready" in ending_html(alone)


def test_the_table_has_a_row_a_picture_and_sorts_by_buttons(comparison):
    text = figures_table(comparison, "x/y", False)
    assert text.count("<tr>") == 1 + 4 and text.count("data-fs-sort") == 5
    assert "disabled" not in text
    assert "disabled" in figures_table(Comparison(comparison.request), "x/y", False)
    assert "<caption>A &amp; B</caption>" in table_html("A & B", ["x"], [["1"]])


def test_the_file_of_the_zip_names_every_picture(comparison):
    record = comparison_file(comparison, "x/y")
    assert [p["file"] for p in record["pictures"]] == [
        f"{key}-seed{seed}.png" for key in (FULL, STUDENT) for seed in (5, 6)
    ]
    assert record["columns"][1]["guidance_scale"] == 1.0
    assert record["pictures"][2]["distance"] == pytest.approx(0.25)


def test_the_columns_form_has_labels_and_a_row_a_column(choices):
    text = columns_form(choices, choices.default())
    rows, template = text.split("<template>")
    assert rows.count("data-fs-row") == 5 and template.count("data-fs-row") == 1
    assert rows.count("<label") == 5 * 4
    assert rows.count('aria-label="Remove this column"') == 5


def test_both_grids_are_shown_with_what_the_last_call_covers():
    text = grids_html(3.0, 4)
    assert "1 → 0.858 → 0.602 → 0.009 → 0" in text and "1 → 0.9 → 0.75 → 0.5 → 0" in text
    assert "<strong>0.9%</strong>" in text and "<strong>50.0%</strong>" in text
