"""The words the emoji model knows, and how a typed prompt becomes what it reads."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from flowsteer.emoji.concepts import load_concepts, plural_of

_GRAMMAR = """
    red orange yellow green blue purple pink brown gray white 3d flat noto twemoji small little
    large big two three four some left right top bottom middle center corner side above below under
    next to of beside and on in at with a an the plain background vertical horizontal diagonal
    gradient style
"""
_SPELLINGS = {
    "grey": "gray",
    "centre": "center",
    "colour": "color",
    "tiny": "small",
    "huge": "large",
    "beneath": "below",
    "2": "two",
    "3": "three",
    "4": "four",
}
_TOKEN = re.compile(r"[a-z0-9]+(?:[-'][a-z0-9]+)*")
# What cannot be read: a drawn symbol, or a word in another script.
_UNREADABLE = re.compile(
    "[\u2190-\u2bff\u3030\u303d\u3297\u3299\U0001f000-\U0001faff]|[^\\W\x00-\x7f]+"
)


@lru_cache(maxsize=1)
def _emoji_names() -> tuple[re.Pattern[str], dict[str, str]]:
    """A pattern for every concept's emoji character, with or without U+FE0F, and its name."""
    names: dict[str, str] = {}
    for concept in load_concepts():
        names[concept.emoji.replace("\ufe0f", "")] = concept.name
    longest_first = sorted(names, key=len, reverse=True)
    parts = ["\ufe0f?".join(map(re.escape, emoji)) for emoji in longest_first]
    # A skin tone after the character does not change what it means here.
    return re.compile(f"(?:{'|'.join(parts)})\ufe0f?[\U0001f3fb-\U0001f3ff]?"), names


@lru_cache(maxsize=1)
def _phrases() -> dict[str, list[tuple[tuple[str, ...], str]]]:
    """By first word: (words, what they become) of all names, plurals and aliases, longest first."""
    meaning: dict[str, str] = {}
    concepts = load_concepts()
    for concept in concepts:
        meaning[concept.name] = concept.name
        meaning[concept.plural] = concept.plural
    for concept in concepts:
        for alias in concept.aliases:
            meaning.setdefault(alias, concept.name)
            meaning.setdefault(plural_of(alias), concept.plural)
    table: dict[str, list[tuple[tuple[str, ...], str]]] = {}
    for phrase, becomes in meaning.items():
        words = tuple(_TOKEN.findall(phrase))
        table.setdefault(words[0], []).append((words, becomes))
    for entries in table.values():
        entries.sort(key=lambda entry: -len(entry[0]))
    return table


def _readable(prompt: str) -> str:
    """The prompt with emoji characters named and accents taken off letters."""
    if prompt.isascii():
        return prompt
    pattern, names = _emoji_names()
    bare = re.compile("[\ufe0f\U0001f3fb-\U0001f3ff]")
    text = pattern.sub(lambda found: f" {names[bare.sub('', found.group())]} ", prompt)
    text = unicodedata.normalize("NFKD", text.replace("\u2019", "'"))
    return "".join(char for char in text if not unicodedata.combining(char))


def normalize_prompt(prompt: str) -> str:
    """What the model reads of a typed prompt.

    Emoji characters become names, other names of a concept its own ("motorcycle" -> "motorbike"),
    the digits 2 to 4 words, "grey" gray, "tiny" small; letters become small, punctuation and
    repeated spaces go. Doing it twice changes nothing more.
    """
    words = [_SPELLINGS.get(word, word) for word in _TOKEN.findall(_readable(prompt).lower())]
    phrases = _phrases()
    out: list[str] = []
    at = 0
    while at < len(words):
        for phrase, becomes in phrases.get(words[at], ()):
            if tuple(words[at : at + len(phrase)]) == phrase:
                out.append(becomes)
                at += len(phrase)
                break
        else:
            out.append(words[at])
            at += 1
    return " ".join(out)


@lru_cache(maxsize=1)
def known_words() -> frozenset[str]:
    """All words a normalised caption can hold."""
    words = set(_GRAMMAR.split())
    for concept in load_concepts():
        words.update(_TOKEN.findall(f"{concept.name} {concept.plural}"))
    return frozenset(words)


def unknown_words(prompt: str) -> list[str]:
    """The words and emoji of a prompt that the model never met, each once.

    Other names of a concept count as known, and so do plurals. Words come first, in order, then
    emoji and words of other scripts, which `normalize_prompt` leaves out.
    """
    known = known_words()
    strange = [word for word in normalize_prompt(prompt).split() if word not in known]
    strange += _UNREADABLE.findall(_readable(prompt))
    return list(dict.fromkeys(strange))
