from __future__ import annotations

import pytest

from flowsteer.emoji.concepts import (
    GRAMMAR_WORDS,
    concepts_from_json,
    concepts_to_json,
    is_plural_only,
    load_concepts,
    make_concepts,
    parse_selection,
    plural_of,
    selection_text,
)


@pytest.mark.parametrize(
    ("name", "plural"),
    [
        ("koala", "koalas"),
        ("strawberry", "strawberries"),
        ("monkey", "monkeys"),
        ("computer mouse", "computer mice"),
        ("fox", "foxes"),
        ("church", "churches"),
        ("sheep", "sheep"),
        ("tropical fish", "tropical fish"),
        ("snowman", "snowmen"),
        ("tooth", "teeth"),
        ("maple leaf", "maple leaves"),
        ("potato", "potatoes"),
        ("piano", "pianos"),
        ("octopus", "octopuses"),
        ("dress", "dresses"),
        ("grapes", "grapes"),
        ("heart with arrow", "hearts with arrow"),
        ("statue of liberty", "statues of liberty"),
        ("thumbs up", "thumbs up"),
    ],
)
def test_plurals(name, plural):
    assert plural_of(name) == plural


def test_plural_only_names_take_no_article():
    assert [
        n for n in ("grapes", "bus", "dress", "scissors", "fleur-de-lis") if is_plural_only(n)
    ] == [
        "grapes",
        "scissors",
    ]


def test_at_least_600_concepts_with_names_people_type():
    concepts = load_concepts()
    assert len(concepts) >= 600
    names = [c.name for c in concepts]
    assert {"koala", "pizza", "strawberry", "rocket"} <= set(names)
    assert all(len(name.split()) <= 3 for name in names)
    assert len({c.emoji for c in concepts}) == len(concepts)


def test_a_name_means_one_concept():
    owner: dict[str, str] = {}
    for concept in load_concepts():
        for form in {concept.name, concept.plural, *concept.aliases}:
            assert owner.setdefault(form, concept.name) == concept.name, form


def test_names_stay_clear_of_the_grammar():
    clash = {"of", "with"}  # inside a name ("statue of liberty") these two do no harm
    for concept in load_concepts():
        assert not set(concept.name.split()) & (GRAMMAR_WORDS - clash), concept.name


def test_the_bundled_list_is_the_selection():
    rows = parse_selection(selection_text())
    concepts = load_concepts()
    assert [(emoji, name) for emoji, name, _ in rows] == [(c.emoji, c.name) for c in concepts]


def test_the_official_label_becomes_an_alias_where_it_is_free():
    rows = [("A", "car", ["motor"]), ("B", "bus", ["motor"])]
    car, bus = make_concepts(rows, {"A": "automobile", "B": "car"})
    assert car.aliases == ("motor", "automobile")
    assert bus.aliases == ()


@pytest.mark.parametrize("name", ["car", "red"])
def test_names_that_are_not_free_are_refused(name):
    with pytest.raises(ValueError, match=f"{name}.*is not free"):
        make_concepts([("A", "car", []), ("B", name, [])], {})


def test_json_round_trip():
    concepts = load_concepts()[:5]
    assert concepts_from_json(concepts_to_json(concepts)) == concepts
