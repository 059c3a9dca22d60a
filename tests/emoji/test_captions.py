"""Captions are parsed back and held against their scene's truth."""

from __future__ import annotations

import random
import re

import pytest

from flowsteer.emoji.art_sources import STYLES
from flowsteer.emoji.captions import NUMBERS, caption, caption_corpus
from flowsteer.emoji.concepts import load_concepts
from flowsteer.emoji.scenes import COLORS, World, draw_scene, place_name
from flowsteer.emoji.words import normalize_prompt

CONCEPTS = load_concepts()
NUMBER_OF = {form: n for n, c in enumerate(CONCEPTS) for form in (c.name, c.plural)}
BACKGROUND = re.compile(
    rf"(?:\b(?:on|with)(?: an?)?)?(?: plain| vertical| horizontal| diagonal)*"
    rf" ({'|'.join(COLORS)})(?: to ({'|'.join(COLORS)}))?(?: gradient)?(?: background)?$"
)
PLACE = re.compile(
    r" (?:in|on|at) the (top left|top right|bottom left|bottom right|left|right|top|bottom"
    r"|middle|center)(?: side| corner)?$"
)
JOINT = re.compile(r" (?:to the )?(left of|right of|above|below|under|next to|beside|and)(?= )")
STYLE_AFTER = re.compile(rf" in ({'|'.join(STYLES)}) style$")


@pytest.fixture(scope="module")
def told():
    rng, world = random.Random(11), World(len(CONCEPTS), training=True)
    scenes = [draw_scene(rng, world) for _ in range(12_000)]
    return [(scene, normalize_prompt(caption(scene, rng, CONCEPTS))) for scene in scenes]


def read_object(words):
    """(count, size word, style, concept) of the words of one object, None where not told."""
    count = size = style = None
    words = words.split()
    while words and " ".join(words) not in NUMBER_OF:
        word = words.pop(0)
        if word in NUMBERS:
            count = NUMBERS.index(word)
        elif word in ("small", "little", "large", "big"):
            size = word
        elif word in STYLES:
            style = word
        else:
            assert word in ("a", "an", "some"), word
    return count, size, style, NUMBER_OF[" ".join(words)]


def take(pattern, text):
    """What the pattern finds at the end of the text, and the text before it."""
    found = pattern.search(text)
    return (None, text) if found is None else (found, text[: found.start()].rstrip())


def check_object(told_object, thing, limits):
    _, size, style, concept = told_object
    assert concept == thing.concept
    assert style in (None, STYLES[thing.style])
    if size in ("small", "little"):
        assert thing.size < limits[0]
    elif size is not None:
        assert thing.size > limits[1]


def test_backgrounds_are_true(told):
    for scene, text in told:
        found, _ = take(BACKGROUND, text)
        if found is not None:
            names = tuple(name for name in found.groups() if name)
            assert names == tuple(COLORS[c] for c in scene.background.colors), text
            assert ("gradient" in text) <= (len(names) == 2)
            for way in ("vertical", "horizontal", "diagonal"):
                assert (way not in text) or scene.background.direction == way


def test_single_objects_are_true(told):
    for scene, text in told:
        if scene.kind == "single":
            _, text = take(BACKGROUND, text)
            place, text = take(PLACE, text)
            style, text = take(STYLE_AFTER, text)
            thing = scene.objects[0]
            check_object(read_object(text), thing, (0.45, 0.7))
            assert style is None or style[1] == STYLES[thing.style]
            if place is not None:
                assert place[1].replace("center", "middle") == place_name(thing.x, thing.y)


def test_two_objects_are_true(told):
    for scene, text in told:
        if scene.kind in ("left", "above"):
            _, text = take(BACKGROUND, text)
            joint = JOINT.search(text)
            if joint is None:
                concept = read_object(text)[3]
                assert concept in [thing.concept for thing in scene.objects]
                continue
            first, second = read_object(text[: joint.start()]), read_object(text[joint.end() :])
            by_concept = {thing.concept: thing for thing in scene.objects}
            a, b = by_concept[first[3]], by_concept[second[3]]
            assert a is not b
            check_object(first, a, (0.35, 0.43))
            check_object(second, b, (0.35, 0.43))
            truth = {
                "left of": scene.kind == "left" and a.x < b.x,
                "right of": scene.kind == "left" and a.x > b.x,
                "above": scene.kind == "above" and a.y < b.y,
                "below": scene.kind == "above" and a.y > b.y,
                "under": scene.kind == "above" and a.y > b.y,
                "next to": scene.kind == "left",
                "beside": scene.kind == "left",
                "and": True,
            }
            assert truth[joint[1]], text


def test_counts_are_true(told):
    repeated = 0
    for scene, text in told:
        if scene.kind == "count":
            _, text = take(BACKGROUND, text)
            name = CONCEPTS[scene.objects[0].concept].name
            if text == " ".join([name] * len(scene.objects)):
                repeated += 1
                continue
            count, size, style, concept = read_object(text)
            assert concept == scene.objects[0].concept
            assert count in (None, len(scene.objects)), text
            assert style in (None, STYLES[scene.objects[0].style])
    assert repeated > 10


def test_what_is_told_and_how_often(told):
    def share(kinds, test):
        texts = [text for scene, text in told if scene.kind in kinds]
        return sum(map(test, texts)) / len(texts)

    two = ("left", "above")
    assert share(two, lambda t: JOINT.search(take(BACKGROUND, t)[1]) is not None) >= 0.85
    assert share(("count",), lambda t: t.split()[0] in NUMBERS) >= 0.85
    every = ("single", "count", *two)
    assert share(every, lambda t: take(BACKGROUND, t)[0] is not None) == pytest.approx(
        0.5, abs=0.05
    )
    styled = share(("single",), lambda t: any(s in t.split() for s in STYLES))
    assert styled == pytest.approx(0.5, abs=0.05)
    assert share(("single",), lambda t: t in NUMBER_OF or t.split(" ", 1)[1] in NUMBER_OF) > 0.08
    assert share(("single",), lambda t: take(PLACE, take(BACKGROUND, t)[1])[0] is not None) > 0.15


def test_captions_are_short(told):
    assert max(len(text.split()) for _, text in told) <= 22


def test_captions_are_drawn_from_their_generator_alone():
    assert list(caption_corpus(50, seed=3)) == list(caption_corpus(50, seed=3))
    assert list(caption_corpus(50, seed=3)) != list(caption_corpus(50, seed=4))


def test_people_type_emoji_and_digits_too():
    texts = list(caption_corpus(4000, seed=5))
    assert 0.02 < sum(not text.isascii() for text in texts) / len(texts) < 0.15
    assert any(re.match(r"[234] ", text) for text in texts)


def test_articles():
    texts = " | ".join(caption_corpus(30_000, seed=6))
    assert " an elephant" in texts and " a unicorn" in texts and " an hourglass" in texts
    assert not re.search(r"\ba (?:elephant|apple|orange|hourglass)\b", texts)
    assert not re.search(r"\ban? (?:3d |flat )?(?:grapes|scissors|jeans)\b", texts)
