from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowsteer.emoji.captions import caption_corpus
from flowsteer.emoji.concepts import load_concepts
from flowsteer.emoji.words import known_words, normalize_prompt, unknown_words


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("A 3D Koala on a Blue background.", "a 3d koala on a blue background"),
        ("🐨 on blue", "koala on blue"),
        ("🐨🐨", "koala koala"),
        ("3 🍓", "three strawberry"),
        ("a ❤ and a ❤️", "a heart and a heart"),
        ("🐻‍❄️", "polar bear"),
        ("👍🏽", "thumbs up"),
        ("two motorcycles on grey", "two motorbikes on gray"),
        ("a top hat in the top left", "a magician hat in the top left"),
        ("a  tiny   t-shirt, please", "a small t-shirt please"),
        ("hot dog and dog", "hot dog and dog"),
        ("a bow and arrow", "a bow with arrow"),
        ("flip\u2019s koala", "flip's koala"),
        ("two piñatas", "two pinatas"),
        ("", ""),
    ],
)
def test_normalize(typed, read):
    assert normalize_prompt(typed) == read


def test_every_emoji_and_every_name_is_read_as_its_concept():
    for concept in load_concepts():
        assert normalize_prompt(concept.emoji) == concept.name
        assert normalize_prompt(concept.emoji.replace("\ufe0f", "")) == concept.name
        for alias in (concept.name, *concept.aliases):
            assert normalize_prompt(alias) == concept.name
        assert normalize_prompt(concept.plural) == concept.plural


@given(st.text(max_size=60))
def test_normalizing_twice_changes_nothing_more(prompt):
    once = normalize_prompt(prompt)
    assert normalize_prompt(once) == once
    assert once == once.lower() and "  " not in once


def test_captions_hold_known_words_only_and_all_of_them():
    seen: set[str] = set()
    for text in caption_corpus(30_000, seed=1):
        assert unknown_words(text) == [], text
        seen.update(normalize_prompt(text).split())
    assert seen == known_words()


def test_unknown_words_are_named_once_in_order():
    assert unknown_words("a quokka, a koala and a Zyzzyva beside the quokka!") == [
        "quokka",
        "zyzzyva",
    ]


def test_plurals_and_other_names_are_known():
    assert unknown_words("three strawberries, mice and motorcycles, grey and tiny") == []


def test_unknown_emoji_are_named():
    assert unknown_words("🐨 and 🇫🇷 and 🧅") == ["🇫", "🇷", "🧅"]


def test_words_of_other_scripts_are_named():
    assert unknown_words("考拉 and a koala") == ["考拉"]


def test_a_colour_that_does_not_exist_here_is_unknown():
    assert unknown_words("a koala on a black background") == ["black"]
