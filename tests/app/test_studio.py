"""The drawing behind the page, on a tiny model: no detector, a student from a folder."""

from __future__ import annotations

import pytest
import torch

from flowsteer.app.desk import Waiting
from flowsteer.app.networks import Choices
from flowsteer.app.requests import compare_request, schedule_request, trajectory_request
from flowsteer.app.snapshots import Comparison
from flowsteer.app.studio import Studio
from flowsteer.comparing import PipelineSet, compare
from flowsteer.flow.grids import GRIDS
from flowsteer.loading import load_pipeline


@pytest.fixture(scope="module")
def studio(tiny_folder, lora_student):
    made = Studio(str(tiny_folder), [str(lora_student)], "cpu")
    yield made
    made.close()


def request(studio, prompt="a fox", seed=0, noises=1, text=None):
    choices = studio.choices
    columns = choices.default() if text is None else choices.parse(text)
    return compare_request(choices, prompt, seed, noises, columns)


def test_the_cheapest_come_first_and_distances_once_the_reference_is_there(studio):
    order = []
    for snapshot in studio.compare(request(studio, "a koala", 3)):
        if isinstance(snapshot, Waiting):  # while the weights load
            continue
        assert isinstance(snapshot, Comparison)
        order += [key for key, _ in snapshot.cards if key not in order]
        if ("teacher-28-rectified-auto", 3) not in snapshot.cards:
            assert not snapshot.distances
    assert snapshot.drawing is None and snapshot.is_complete
    assert order == [
        "lora-4-rectified-1",
        "teacher-4-rectified-1",
        "teacher-4-stock-auto",
        "teacher-4-rectified-auto",
        "teacher-28-rectified-auto",
    ]
    assert snapshot.references == {"teacher-28-rectified-auto"}
    assert not snapshot.verdicts


def test_cards_are_those_of_compare(studio, tiny_folder):
    asked = request(studio, "two cats", 5, noises=2)
    *_, last = studio.compare(asked)
    teacher = load_pipeline(str(tiny_folder), device="cpu")
    expected = list(compare(PipelineSet(teacher), "two cats", (5, 6), asked.columns))
    assert len(expected) == len(last.cards) == 10
    for card in expected:
        ours = last.cards[card.column.key, card.seed]
        assert torch.equal(ours.latents, card.latents)
        assert last.distances[card.column.key, card.seed] == (card.distance or 0.0)
        assert (ours.nfe, ours.sigmas, ours.seed) == (card.nfe, card.sigmas, card.seed)


def test_distances_are_to_28_steps_even_where_no_column_shows_them(studio):
    *_, shown = studio.compare(request(studio, "two dogs", 5))
    studio._references.clear()
    *_, alone = studio.compare(request(studio, "two dogs", 5, text="lora-4-rectified-1"))
    place = ("lora-4-rectified-1", 5)
    assert alone.distances[place] == shown.distances[place] > 0
    assert alone.is_complete and not alone.references


def test_a_noises_distances_come_with_its_reference(studio):
    asked = request(studio, "two hats", 5, noises=2)
    known = [dict(s.distances) for s in studio.compare(asked) if isinstance(s, Comparison)]
    seeds = [frozenset(seed for _, seed in distances) for distances in known]
    assert seeds == sorted(seeds, key=len) and frozenset({5}) in seeds
    assert len(known[-1]) == 10


def test_stop_is_heard_between_two_steps_and_the_next_run_is_whole(studio):
    seen = []

    def should_stop():
        return bool(seen) and len(seen[-1].cards) >= 1

    for snapshot in studio.compare(request(studio, "a hat", 0, noises=2), should_stop):
        seen.append(snapshot)
    assert 1 <= len(seen[-1].cards) < 10
    *_, last = studio.compare(request(studio, "a hat"))
    assert len(last.cards) == 5


def test_a_grid_that_lacks_the_students_edges_fails_before_anything_is_drawn(studio):
    early = Choices(studio.choices.networks)  # as before the model is loaded
    columns = early.parse("teacher-4-rectified-1,lora-3-rectified-1")
    with pytest.raises(ValueError, match="edge"):
        list(studio.compare(compare_request(early, "a fox", 0, 1, columns)))
    studio.pipelines()
    with pytest.raises(ValueError, match="use 4, 8, 12"):
        request(studio, text="teacher-4-rectified-1,lora-3-rectified-1")
    *_, last = studio.compare(request(studio, text="lora-3-rectified_mismatch-1"))
    assert last.is_complete and last.cards["lora-3-rectified_mismatch-1", 0].grid_mismatch


def test_paths_end_where_the_pictures_are(studio):
    asked = trajectory_request(studio.choices, "a fox", 2, ["lora", "teacher"])
    *_, last = studio.trajectory(asked)
    assert last.is_complete
    text = ",".join(last.traces)
    *_, drawn = studio.compare(request(studio, "a fox", 2, text=text))
    for key, trace in last.traces.items():
        assert torch.equal(trace.path.states[-1, 0], drawn.cards[key, 2].latents)
        assert len(trace.frames) == len(trace.path.times) - 1
        assert trace.frames[-1].tobytes() == drawn.cards[key, 2].image.tobytes()
    assert last.traces["lora-4-rectified-1"].edges == (1, 0.9, 0.75, 0.5, 0)
    assert last.traces["teacher-4-rectified-1"].edges == ()


def test_schedules_draw_the_grids_of_any_shift(studio):
    own = float(studio.pipelines().teacher.scheduler.config.shift)
    *_, last = studio.schedule(schedule_request(studio.choices, "a fox", 2, own, 4))
    *_, drawn = studio.compare(
        request(studio, "a fox", 2, text="teacher-4-stock-auto,teacher-4-rectified-auto")
    )
    for name in GRIDS:
        place = (f"teacher-4-{name}-auto", 2)
        assert last.pictures[name].tobytes() == drawn.cards[place].image.tobytes()
        assert last.distances[name] == pytest.approx(drawn.distances[place], abs=1e-5)
    *_, other = studio.schedule(schedule_request(studio.choices, "a fox", 2, own + 4, 4))
    assert other.pictures["rectified"].tobytes() != last.pictures["rectified"].tobytes()


def test_what_cannot_be_loaded_is_said_at_every_request():
    studio = Studio("no such model", ["none"], "cpu")
    for _ in range(2):
        with pytest.raises(ValueError, match="model = 'no such model' is unknown"):
            list(studio.compare(request(studio)))
    studio.close()


def test_closing_ends_a_run(tiny_folder):
    studio = Studio(str(tiny_folder), ["none"], "cpu")
    studio.pipelines()
    running = studio.compare(request(studio, noises=8))
    next(running)
    studio.close()
    *_, last = [None, *running]
    assert last is None or len(last.cards) < 32
