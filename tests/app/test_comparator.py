"""The drawing behind the page, on a tiny model."""

from __future__ import annotations

import pytest
import torch

from flowsteer.app.comparator import Comparator, Snapshot
from flowsteer.comparing import PipelineSet, compare
from flowsteer.loading import load_pipeline


@pytest.fixture(scope="module")
def comparator(tiny_folder, lora_student):
    made = Comparator(str(tiny_folder), str(lora_student), "cpu")
    yield made
    made.close()


def test_the_cheapest_come_first_and_distances_once_the_reference_is_there(comparator):
    order = []
    for snapshot in comparator.draw("a koala", 3):
        order += [key for key in snapshot.cards if key not in order]
        distances = [card.distance for card in snapshot.cards.values()]
        if "teacher_28x2" not in snapshot.cards:
            assert distances == [None] * len(distances)
    assert snapshot.drawing is None
    assert order == [
        "student_4x1",
        "teacher_4x1_rectified",
        "teacher_4x2_stock",
        "teacher_4x2_rectified",
        "teacher_28x2",
    ]
    missing = [key for key, card in snapshot.cards.items() if card.distance is None]
    assert missing == ["teacher_28x2"]


def test_cards_are_those_of_compare(comparator, tiny_folder):
    *_, last = comparator.draw("two cats", 5)
    teacher = load_pipeline(str(tiny_folder), device="cpu")
    expected = list(compare(PipelineSet(teacher), "two cats", 5, comparator.columns()))
    for card in expected:
        ours = last.cards[card.column.key]
        assert torch.equal(ours.latents, card.latents)
        assert ours.distance == card.distance
        assert (ours.nfe, ours.sigmas) == (card.nfe, card.sigmas)


def test_stop_is_heard_between_two_steps_and_the_next_run_is_whole(comparator):
    asked = 0

    def should_stop():
        nonlocal asked
        asked += 1
        return asked > 7  # once before the first step, then after every step

    *_, last = comparator.draw("a fox", 0, should_stop)
    assert list(last.cards) == ["student_4x1"]
    assert last.drawing == "teacher_4x1_rectified"
    *_, last = comparator.draw("a fox", 0)
    assert len(last.cards) == 5


def test_a_dropped_run_makes_room_for_the_next(comparator):
    running = comparator.draw("a fox", 0)
    assert isinstance(next(running), Snapshot)
    running.close()
    *_, last = comparator.draw("a cat", 0)
    assert len(last.cards) == 5


def test_an_error_reaches_who_asked_and_nobody_else(comparator):
    with pytest.raises(ValueError, match="seed = -1 must be"):
        list(comparator.draw("a fox", -1))
    *_, last = comparator.draw("a fox", 1)
    assert len(last.cards) == 5


def test_without_a_student_there_are_four_columns(tiny_folder):
    comparator = Comparator(str(tiny_folder), "none", "cpu")
    *_, last = comparator.draw("a fox", 1)
    comparator.close()
    assert len(last.cards) == 4 and "student_4x1" not in last.cards


def test_what_cannot_be_loaded_is_said_at_every_request():
    comparator = Comparator("no such model", "none", "cpu")
    for _ in range(2):
        with pytest.raises(ValueError, match="model = 'no such model' is unknown"):
            list(comparator.draw("a fox", 1))
    comparator.close()


def test_closing_ends_a_run(tiny_folder):
    comparator = Comparator(str(tiny_folder), "none", "cpu")
    running = comparator.draw("a fox", 1)
    next(running)
    comparator.close()
    *_, last = [Snapshot(), *running]
    assert len(last.cards) < 4
