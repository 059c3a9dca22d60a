"""Captions: each tells a random part of what a scene shows, worded as people type prompts."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence

from flowsteer.emoji.art_sources import STYLES
from flowsteer.emoji.concepts import Concept, is_plural_only, load_concepts
from flowsteer.emoji.scenes import (
    COLORS,
    Background,
    Scene,
    SceneObject,
    World,
    draw_scene,
    place_name,
)

NUMBERS = ("zero", "one", "two", "three", "four")

_PLACE_WORDS = {
    "left": ("on the left", "on the left", "on the left side", "at the left"),
    "right": ("on the right", "on the right", "on the right side", "at the right"),
    "top": ("at the top", "at the top", "in the top"),
    "bottom": ("at the bottom", "at the bottom", "in the bottom"),
    "middle": ("in the middle", "in the center"),
}
_CORNER_WORDS = ("in the {}", "in the {}", "in the {}", "in the {} corner", "at the {}")
_VOWEL_SOUND = re.compile(r"(?!uni|ufo)[aeiou]|hour|x-")
_BESIDE = ("next to", "next to", "beside")
_ABOVE, _BELOW = ("above",), ("below", "below", "under")


def _choice(rng: random.Random, options: Sequence[str]) -> str:
    return options[int(rng.random() * len(options))]


def _noun(rng: random.Random, concept: Concept, plural: bool = False) -> str:
    """The concept's name; at times another of its names, or its emoji character."""
    pick = rng.random()
    if pick < 0.05:
        return concept.emoji
    if pick < 0.15 and concept.aliases and not plural:
        return _choice(rng, concept.aliases)
    return concept.plural if plural else concept.name


def _with_article(words: list[str], articles: bool) -> str:
    """Words of one object ("small", "3d", "koala") with "a" or "an" before them, if wanted."""
    if articles and not is_plural_only(words[-1]) and words[-1].isascii():
        words = ["an" if _VOWEL_SOUND.match(words[0]) else "a", *words]
    return " ".join(words)


def _size_word(rng: random.Random, size: float, small: float, large: float) -> list[str]:
    if size < small:
        return ["little" if rng.random() < 0.1 else "small"]
    if size > large:
        return ["big" if rng.random() < 0.3 else "large"]
    return []


def _object_words(
    rng: random.Random, thing: SceneObject, concept: Concept, limits: tuple[float, float]
) -> list[str]:
    """Size and style, each told or not, and the name of one object."""
    words = _size_word(rng, thing.size, *limits) if rng.random() < 0.3 else []
    if rng.random() < 0.5:
        words.append(STYLES[thing.style])
    return [*words, _noun(rng, concept)]


def place_words(rng: random.Random, place: str) -> str:
    """A wording of a place of `scenes.PLACES`: "top left" -> "in the top left"."""
    if place in _PLACE_WORDS:
        return _choice(rng, _PLACE_WORDS[place])
    return _choice(rng, _CORNER_WORDS).format(place)


def background_words(rng: random.Random, background: Background) -> str:
    """A wording of a background: "on a pink background", "on a pink to blue gradient"."""
    names = [COLORS[color] for color in background.colors]
    pick = rng.random()
    if len(names) == 1:
        article = "an" if names[0][0] == "o" else "a"
        if pick < 0.2:
            return f"on {names[0]}"
        if pick < 0.3:
            return f"{names[0]} background"
        if pick < 0.38:
            return f"with {article} {names[0]} background"
        plain = "plain " if pick > 0.95 else ""
        article = "a" if plain else article
        return f"on {article} {plain}{names[0]} background"
    words = f"{names[0]} to {names[1]}"
    way = f"{background.direction} " if rng.random() < 0.12 else ""
    article = "an" if words[0] == "o" and not way else "a"
    if pick < 0.12:
        return f"{way}{words} gradient"
    if pick < 0.3:
        return f"on {article} {way}{words} gradient background"
    if pick < 0.4:
        return f"on {article} {way}{words} background"
    return f"on {article} {way}{words} gradient"


def _single(rng: random.Random, scene: Scene, concepts: Sequence[Concept]) -> str:
    thing = scene.objects[0]
    words = _object_words(rng, thing, concepts[thing.concept], (0.45, 0.7))
    text = _with_article(words, rng.random() < 0.82)
    if STYLES[thing.style] not in words and rng.random() < 0.06:
        text += f" in {STYLES[thing.style]} style"
    place = place_name(thing.x, thing.y)
    if place is not None and rng.random() < 0.45:
        text += " " + place_words(rng, place)
    return text


def _two(rng: random.Random, scene: Scene, concepts: Sequence[Concept]) -> str:
    first, second = scene.objects
    pick = rng.random()
    if pick < 0.08:  # only one of the two is told
        thing = first if rng.random() < 0.5 else second
        return _with_article(_object_words(rng, thing, concepts[thing.concept], (0.35, 0.43)), True)
    pair = [first, second] if rng.random() < 0.5 else [second, first]
    forward = pair[0] is first
    if pick < 0.45:
        joint = "and"
    elif scene.kind == "above":
        joint = _choice(rng, _ABOVE if forward else _BELOW)
    elif pick < 0.58:
        joint = _choice(rng, _BESIDE)
    else:
        joint = "left of" if forward else "right of"
        if rng.random() < 0.2:
            joint = "to the " + joint
    articles = rng.random() < 0.85
    told = [
        _with_article(_object_words(rng, o, concepts[o.concept], (0.35, 0.43)), articles)
        for o in pair
    ]
    return f"{told[0]} {joint} {told[1]}"


def _count(rng: random.Random, scene: Scene, concepts: Sequence[Concept]) -> str:
    thing, count = scene.objects[0], len(scene.objects)
    concept = concepts[thing.concept]
    pick = rng.random()
    if pick < 0.02:
        return concept.emoji * count
    words = []
    if pick < 0.88:
        words.append(str(count) if rng.random() < 0.2 else NUMBERS[count])
    elif pick < 0.92:
        words.append("some")
    if rng.random() < 0.15:
        mean = sum(o.size for o in scene.objects) / count
        words += _size_word(rng, mean, 0.32, 0.41)
    if rng.random() < 0.5:
        words.append(STYLES[thing.style])
    return " ".join([*words, _noun(rng, concept, plural=True)])


def caption(scene: Scene, rng: random.Random, concepts: Sequence[Concept]) -> str:
    """A caption of a scene, as a person might type it; the model reads it by `normalize_prompt`.

    Each of style, size, place, relation and background is told or left out by chance; objects and
    their number are told mostly (at least 85%).

    Args:
        scene: what is shown.
        rng: the source of all randomness.
        concepts: the concepts, as in `Art.concepts`.
    """
    tell = {"single": _single, "count": _count}.get(scene.kind, _two)
    text = tell(rng, scene, concepts)
    if rng.random() < 0.5:
        text += " " + background_words(rng, scene.background)
    return text


def caption_corpus(n: int, seed: int, training: bool = True) -> Iterator[str]:
    """n captions of random scenes, to train a tokenizer or to draw prompts from."""
    concepts = load_concepts()
    world, rng = World(len(concepts), training), random.Random(f"corpus/{seed}")
    for _ in range(n):
        yield caption(draw_scene(rng, world), rng, concepts)
