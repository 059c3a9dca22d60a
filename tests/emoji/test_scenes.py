from __future__ import annotations

import itertools
import json
import math
import random
from collections import Counter
from importlib import resources

import pytest

from flowsteer.emoji.art_sources import STYLES
from flowsteer.emoji.concepts import load_concepts
from flowsteer.emoji.scenes import (
    COLOR_RGB,
    COLORS,
    DIRECTIONS,
    KINDS,
    MAX_ANGLE,
    World,
    draw_scene,
    held_out_json,
    held_out_style,
    pair_held_out,
    place_name,
    scene_from_seed,
)

COUNT = len(load_concepts())


@pytest.fixture(scope="module")
def scenes():
    rng, world = random.Random(5), World(COUNT, training=True)
    return [draw_scene(rng, world) for _ in range(6000)]


def box(thing):
    """Half the side of the upright box around a turned square."""
    turn = math.radians(thing.angle)
    return 0.5 * thing.size * (math.cos(turn) + abs(math.sin(turn)))


def test_ten_colours_are_well_apart():
    assert len(COLORS) == len(COLOR_RGB) == 10
    for first, second in itertools.combinations(COLOR_RGB, 2):
        assert math.dist(first, second) >= 84


def test_objects_stay_inside_the_canvas(scenes):
    for scene in scenes:
        for thing in scene.objects:
            half = box(thing) - 1e-9
            assert half <= thing.x <= 1 - half and half <= thing.y <= 1 - half
            assert abs(thing.angle) <= MAX_ANGLE


def test_objects_do_not_overlap(scenes):
    for scene in scenes:
        for a, b in itertools.combinations(scene.objects, 2):
            apart = max(abs(a.x - b.x), abs(a.y - b.y))
            assert apart >= box(a) + box(b) - 1e-9, scene


def test_the_relation_holds_clearly(scenes):
    for scene in scenes:
        if scene.kind in ("left", "above"):
            a, b = scene.objects
            dx, dy = b.x - a.x, b.y - a.y
            along, across = (dx, dy) if scene.kind == "left" else (dy, dx)
            assert along > 0.3 and abs(across) <= 0.65 * along
            assert a.concept != b.concept


def test_kinds_counts_and_sizes(scenes):
    kinds = Counter(scene.kind for scene in scenes)
    assert set(kinds) == set(KINDS)
    assert kinds["single"] == pytest.approx(0.40 * len(scenes), rel=0.1)
    assert kinds["left"] == pytest.approx(0.175 * len(scenes), rel=0.15)
    assert kinds["above"] == pytest.approx(0.175 * len(scenes), rel=0.15)
    for scene in scenes:
        sizes = [thing.size for thing in scene.objects]
        if scene.kind == "single":
            assert len(sizes) == 1 and 0.35 <= sizes[0] <= 0.85
        elif scene.kind == "count":
            assert len({(o.concept, o.style) for o in scene.objects}) == 1
            assert 2 <= len(sizes) <= 4 and min(sizes) >= 0.27
        else:
            assert len(sizes) == 2 and min(sizes) >= 0.25 and max(sizes) <= 0.5
    counts = Counter(len(scene.objects) for scene in scenes if scene.kind == "count")
    assert min(counts.values()) > 0.25 * sum(counts.values())


def test_scenes_vary(scenes):
    assert len({o.concept for s in scenes for o in s.objects}) == COUNT
    assert len({s.background.colors for s in scenes}) == 10 + 90
    assert {s.background.direction for s in scenes} == set(DIRECTIONS)
    assert all(len(set(s.background.colors)) == len(s.background.colors) for s in scenes)
    places = Counter(
        place_name(s.objects[0].x, s.objects[0].y) for s in scenes if s.kind == "single"
    )
    assert len(places) == 10  # nine places, and None between them


def test_training_never_draws_what_is_held_out(scenes):
    for scene in scenes:
        for thing in scene.objects:
            assert held_out_style(thing.concept) != thing.style
        if scene.kind in ("left", "above"):
            assert not pair_held_out(scene.objects[0].concept, scene.objects[1].concept)


def test_evaluation_draws_what_is_held_out():
    rng, world = random.Random(6), World(COUNT)
    drawn = [draw_scene(rng, world) for _ in range(3000)]
    assert any(held_out_style(o.concept) == o.style for s in drawn for o in s.objects)
    assert any(
        pair_held_out(*(o.concept for o in s.objects)) for s in drawn if s.kind in ("left", "above")
    )


def test_five_percent_are_held_out():
    styles = sum(held_out_style(c) is not None for c in range(COUNT)) / (COUNT * len(STYLES))
    assert styles == pytest.approx(0.05, abs=0.008)
    pairs = [pair_held_out(a, b) for a, b in itertools.combinations(range(COUNT), 2)]
    assert sum(pairs) / len(pairs) == pytest.approx(0.05, abs=0.003)
    assert pair_held_out(3, 8) == pair_held_out(8, 3)


def test_the_bundled_listing_is_the_rule():
    file = resources.files("flowsteer.emoji") / "data" / "held_out.json"
    text = file.read_text("utf-8")
    assert text == held_out_json(load_concepts())
    listed = json.loads(text)
    names = [c.name for c in load_concepts()]
    for name, style in listed["concept_styles"]:
        assert STYLES[held_out_style(names.index(name))] == style
    low, highs = next(iter(listed["concept_pairs"].items()))
    assert all(pair_held_out(int(low), high) for high in highs)


@pytest.mark.parametrize(
    ("x", "y", "place"),
    [
        (0.2, 0.2, "top left"),
        (0.5, 0.3, "top"),
        (0.8, 0.5, "right"),
        (0.5, 0.5, "middle"),
        (0.3, 0.7, "bottom left"),
        (0.5, 0.9, "bottom"),
        (0.42, 0.5, None),
        (0.5, 0.59, None),
    ],
)
def test_place_names(x, y, place):
    assert place_name(x, y) == place


def test_a_seed_is_a_scene():
    world = World(COUNT)
    assert scene_from_seed(7, world) == scene_from_seed(7, world)
    assert scene_from_seed(7, world) != scene_from_seed(8, world)


def test_these_scenes_never_change():
    """Training and figures rest on them: a change here needs new weights."""
    scene = scene_from_seed(1, World(COUNT, training=True))
    rounded = [(o.concept, o.style, round(o.x, 6), round(o.size, 6)) for o in scene.objects]
    assert (scene.kind, rounded, scene.background.colors) == GOLDEN


GOLDEN = (
    "count",
    [(443, 1, 0.742337, 0.33419), (443, 1, 0.713647, 0.3172), (443, 1, 0.276652, 0.281494)],
    (2,),
)


@pytest.mark.parametrize("count", [0, 1, COUNT + 1])
def test_a_world_of_no_size_is_refused(count):
    with pytest.raises(ValueError, match=rf"num_concepts is {count}; use 2 to {COUNT}"):
        World(count)
