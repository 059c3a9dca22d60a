from __future__ import annotations

import base64
import io
from dataclasses import replace

import pytest
import torch
from PIL import Image

from flowsteer.app.comparator import Snapshot
from flowsteer.app.views import (
    CardView,
    card_html,
    ending_html,
    escape,
    png_data_uri,
    progress_html,
    short_sigmas,
)
from flowsteer.comparing import COMPARE_COLUMNS, Card


def make_card(index, distance=None, seconds=1.0):
    column = COMPARE_COLUMNS[index]
    scale = column.settings.guidance_scale or 3.0
    column = replace(column, settings=replace(column.settings, guidance_scale=scale))
    steps = column.settings.num_inference_steps
    return Card(
        column=column,
        image=Image.new("RGB", (8, 8), (10, 200, 30)),
        latents=torch.zeros(1, 2, 2),
        nfe=steps * (2 if scale > 1 else 1),
        seconds=seconds,
        sigmas=tuple(torch.linspace(1, 0, steps + 1).tolist()),
        distance=distance,
    )


def test_escape_leaves_nothing_that_html_or_a_template_reads():
    assert not set("<>\"'${}") & set(escape("<b a=\"1\" b='2'>${x} {{y}}</b>"))
    assert escape(4) == "4"


def test_short_sigmas_keeps_short_grids_and_cuts_long_ones():
    assert short_sigmas([1, 0.9, 0.75, 0.5, 0]) == "1 → 0.9 → 0.75 → 0.5 → 0"
    assert short_sigmas([1, 0.8577, 0.6022, 0.0089, 0]) == "1 → 0.858 → 0.602 → 0.009 → 0"
    assert short_sigmas([1, 0.8, 0.7, 0.5, 0.4, 0.2, 0]) == "1 → 0.8 → … → 0.2 → 0"


def test_a_data_uri_holds_the_exact_pixels():
    image = Image.effect_noise((16, 16), 80).convert("RGB")
    data = base64.b64decode(png_data_uri(image).removeprefix("data:image/png;base64,"))
    assert Image.open(io.BytesIO(data)).tobytes() == image.tobytes()


def test_a_finished_card_says_its_figures_and_describes_its_picture():
    card = make_card(4, distance=0.25)
    text = card_html(CardView(card.column, "student", "done", card, prompt='a "fox"'))
    for part in (">4<", ">none<", ">0.250<", "1.00", 'data-role="student"', "a &quot;fox&quot;"):
        assert part in text
    assert "mismatch" not in text
    assert "Grid mismatch" in card_html(
        CardView(card.column, "student", "done", replace(card, grid_mismatch=True))
    )


def test_the_reference_has_no_distance_and_others_wait_for_theirs():
    reference, other = make_card(0), make_card(1)
    assert "reference</small>" in card_html(
        CardView(reference.column, "reference", "done", reference)
    )
    assert ">–<" in card_html(CardView(other.column, "teacher", "done", other))


@pytest.mark.parametrize(
    ("state", "words"),
    [("waiting", "Waiting"), ("stopped", "Stopped"), ("drawing", "Step 3 of 28")],
)
def test_a_card_without_a_picture_says_why(state, words):
    text = card_html(CardView(COMPARE_COLUMNS[0], "reference", state, steps_done=2))
    assert words in text and "<img" not in text


def test_the_status_line_counts_compares_and_admits_a_stop():
    cards = {c.key: make_card(i, seconds=1 + 9 * (i == 0)) for i, c in enumerate(COMPARE_COLUMNS)}
    key = "student_4x1"
    some = Snapshot({key: cards[key]}, drawing="teacher_28x2")
    running = progress_html(COMPARE_COLUMNS, some, "a fox", 5)
    assert "1 of 5" in running and "Teacher, 28 steps" in running
    assert "Stopped after 1 of 5" in ending_html(COMPARE_COLUMNS, some, "a fox", 5)
    done = ending_html(COMPARE_COLUMNS, Snapshot(cards), "a fox", 5)
    assert "10.0 times faster" in done and "Seed 5" in done and "a fox" in done
    teachers = COMPARE_COLUMNS[:4]
    without = Snapshot({column.key: cards[column.key] for column in teachers})
    assert "All pictures are ready" in ending_html(teachers, without, "a fox", 5)
