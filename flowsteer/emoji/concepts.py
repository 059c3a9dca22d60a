"""The things the emoji world can show: about 680 concepts with names that people type.

`data/selection.txt` is the hand-made list behind them. A concept is on it if all four art sets
draw it, it has a short name free of the caption grammar's own words (colours, styles, sizes,
numbers, places), and it looks unlike every other concept at 40 pixels: flags, skin tones, clock
faces, letters, arrows and near-duplicates were taken out by measuring the distance of the
pictures (`flowsteer.emoji.art.closest_pairs`) and by eye.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

_GRAMMAR = """
    red orange yellow green blue purple pink brown gray grey white black 3d flat noto twemoji
    small little tiny large big huge one two three four 2 3 4 left right top bottom middle center
    above below under on in at of and next to beside a an the with gradient background style
    corner side vertical horizontal diagonal plain some
"""
GRAMMAR_WORDS = frozenset(_GRAMMAR.split())
"""Words of the caption grammar; no concept is named by one of them alone."""

_UNCHANGED = """
    sheep deer fish blowfish jellyfish moose bison shrimp squid dice sushi spaghetti broccoli
    ramen corn bacon garlic popcorn rice food coral fleur-de-lis up down dna zzz
"""
_SAME_PLURAL = frozenset(_UNCHANGED.split())
_IRREGULAR = {
    "mouse": "mice",
    "foot": "feet",
    "tooth": "teeth",
    "man": "men",
    "woman": "women",
    "snowman": "snowmen",
    "leaf": "leaves",
    "knife": "knives",
    "wolf": "wolves",
    "scarf": "scarves",
    "potato": "potatoes",
    "tomato": "tomatoes",
    "mango": "mangoes",
    "volcano": "volcanoes",
    "tornado": "tornadoes",
    "superhero": "superheroes",
}


@dataclass(frozen=True)
class Concept:
    """One thing that can be drawn: its name, plural, emoji character, and other names."""

    name: str
    plural: str
    emoji: str
    aliases: tuple[str, ...] = ()


def is_plural_only(name: str) -> bool:
    """Whether a name is already a plural ("grapes", "scissors") and so takes no article."""
    word = name.rpartition(" ")[2]
    return word.endswith("s") and not word.endswith(("ss", "us")) and word not in _SAME_PLURAL


def plural_of(name: str) -> str:
    """The plural of a concept's name: of its last word, or of the one before "of" or "with"."""
    for joint in (" of ", " with "):
        if joint in name:
            head, _, tail = name.partition(joint)
            return plural_of(head) + joint + tail
    if is_plural_only(name):
        return name
    start, space, word = name.rpartition(" ")
    if word in _SAME_PLURAL:
        plural = word
    elif word in _IRREGULAR:
        plural = _IRREGULAR[word]
    elif re.search(r"[^aeiou]y$", word):
        plural = word[:-1] + "ies"
    elif word.endswith(("s", "x", "z", "ch", "sh")):
        plural = word + "es"
    else:
        plural = word + "s"
    return start + space + plural


def parse_selection(text: str) -> list[tuple[str, str, list[str]]]:
    """Read selection lines "emoji name; alias; alias" into (emoji, name, aliases) rows."""
    rows = []
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            emoji, _, names = line.strip().partition(" ")
            name, *aliases = (part.strip() for part in names.split(";"))
            rows.append((emoji, name, aliases))
    return rows


def selection_text() -> str:
    """The hand-made list of concepts, as text."""
    return (resources.files("flowsteer.emoji") / "data" / "selection.txt").read_text("utf-8")


def _usable_alias(label: str) -> bool:
    return re.fullmatch(r"[a-z' -]+", label) is not None and len(label.split()) <= 3


def make_concepts(
    rows: Sequence[tuple[str, str, list[str]]], labels: Mapping[str, str]
) -> tuple[Concept, ...]:
    """Concepts from selection rows; the official label joins the aliases where it is unique.

    Args:
        rows: (emoji, name, aliases), as from `parse_selection`.
        labels: official English label by emoji.

    Raises:
        ValueError: if a name is used twice or is a word of the caption grammar.
    """
    taken: set[str] = set()
    for emoji, name, _ in rows:
        forms = {name, plural_of(name)}
        if forms & taken or name in GRAMMAR_WORDS:
            raise ValueError(f"name {name!r} of {emoji} is not free; give it another name")
        taken |= forms
    concepts = []
    for emoji, name, aliases in rows:
        label = labels.get(emoji, name).lower()
        own = []
        for alias in [*aliases, *([label] if _usable_alias(label) else [])]:
            if alias not in taken and alias not in GRAMMAR_WORDS:
                taken |= {alias, plural_of(alias)}
                own.append(alias)
        concepts.append(Concept(name, plural_of(name), emoji, tuple(own)))
    return tuple(concepts)


def concepts_to_json(concepts: Sequence[Concept]) -> str:
    """Concepts as JSON text, one a line."""
    lines = [
        json.dumps([c.emoji, c.name, c.plural, list(c.aliases)], ensure_ascii=False)
        for c in concepts
    ]
    return "[\n" + ",\n".join(lines) + "\n]\n"


def concepts_from_json(text: str) -> tuple[Concept, ...]:
    """Concepts from the text `concepts_to_json` makes."""
    return tuple(
        Concept(name, plural, emoji, tuple(aliases))
        for emoji, name, plural, aliases in json.loads(text)
    )


@lru_cache(maxsize=1)
def load_concepts() -> tuple[Concept, ...]:
    """The concepts of the bundled art, in its order; a concept's number is its place here."""
    file = resources.files("flowsteer.emoji") / "data" / "concepts.json"
    return concepts_from_json(file.read_text("utf-8"))
