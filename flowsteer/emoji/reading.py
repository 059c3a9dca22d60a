"""What a typed prompt names, read back as an `EvalPrompt`, so that its pictures can be judged.

Only what the captions' own wording can say is read: one object, two, or a number of one, at a
place or in a relation, on a background. Size is not judged, and neither is a gradient's direction.
"""

from __future__ import annotations

import re
from functools import lru_cache

from flowsteer.emoji.art_sources import STYLES
from flowsteer.emoji.captions import NUMBERS
from flowsteer.emoji.concepts import is_plural_only, load_concepts
from flowsteer.emoji.prompts import EvalPrompt, PromptObject
from flowsteer.emoji.scenes import COLORS, PLACES
from flowsteer.emoji.words import normalize_prompt

_COLOR = "|".join(COLORS)
_BACKGROUND = re.compile(
    r"(?: |^)(?P<on>on |with |in )?(?:an? |the )?(?:plain )?(?:vertical |horizontal |diagonal )?"
    rf"(?P<first>{_COLOR})(?: (?:to|and) (?P<second>{_COLOR}))?"
    r"(?P<kind>(?: gradient)?(?: background)?)$"
)
_PLACE_NAMES = sorted((name for row in PLACES for name in row), key=len, reverse=True)
_PLACE = re.compile(
    rf" (?:in|at|on) the (?P<place>{'|'.join(_PLACE_NAMES)}|center)(?: side| corner)?$"
)
_RELATIONS = {
    "to the left of": "left of",
    "left of": "left of",
    "to the right of": "right of",
    "right of": "right of",
    "above": "above",
    "below": "below",
    "under": "below",
    "next to": None,
    "beside": None,
    "and": None,
}
_JOINT = re.compile(rf" (?P<joint>{'|'.join(_RELATIONS)}) ")
_MODIFIERS = re.compile(
    r"(?:an? |the )?(?:(?:small|little|large|big) )?"
    rf"(?:(?P<style>{'|'.join(STYLES)}) )?(?P<name>.+?)(?: in (?P<late>{'|'.join(STYLES)}) style)?$"
)
_COUNT = re.compile(rf"(?P<count>{'|'.join(NUMBERS[2:])}) (?P<rest>.+)$")


def read_scene(prompt: str) -> EvalPrompt | None:
    """What a prompt names, as far as a picture can be judged by it.

    Args:
        prompt: as typed; emoji characters and other names of a concept are understood.

    Returns:
        None if a part of the prompt is not understood: then no verdict would be fair.
    """
    text = normalize_prompt(prompt)
    whole = _read_objects(text, prompt)
    if whole is not None:  # "a flat orange" names no background
        return whole
    found = _BACKGROUND.search(text)
    if found is None or not (found["on"] or found["kind"]):
        return None
    colors = tuple(color for color in (found["first"], found["second"]) if color)
    return _read_objects(text[: found.start()], prompt, colors)


def _read_objects(
    text: str, prompt: str, background: tuple[str, ...] | None = None
) -> EvalPrompt | None:
    """One object with or without a place, a number of one, or two."""
    task = "single" if background is None else "colors"
    place = _PLACE.search(text)
    if place is not None and (thing := _read_one(text[: place.start()])) is not None:
        name = "middle" if place["place"] == "center" else place["place"]
        return EvalPrompt(prompt, "position", (thing,), background, place=name)
    if (thing := _read_one(text) or _read_many(text)) is not None:
        return EvalPrompt(prompt, task if thing.count == 1 else "counting", (thing,), background)
    for joint in _JOINT.finditer(text):
        first, second = _read_one(text[: joint.start()]), _read_one(text[joint.end() :])
        if first is not None and second is not None and first.concept != second.concept:
            relation = _RELATIONS[joint["joint"]]
            kind = "two_objects" if relation is None else "position"
            return EvalPrompt(prompt, kind, (first, second), background, relation)
    return None


def _read_one(text: str) -> PromptObject | None:
    """ "a small 3d koala"."""
    singulars, _ = _names()
    found = _MODIFIERS.match(text)
    if found is None or found["name"] not in singulars:
        return None
    return PromptObject(singulars[found["name"]], found["style"] or found["late"])


def _read_many(text: str) -> PromptObject | None:
    """ "three large flat koalas", or a name as many times over."""
    singulars, plurals = _names()
    for count in (2, 3, 4):
        name = text[: (len(text) + 1) // count - 1]
        if name in singulars and " ".join([name] * count) == text:
            return PromptObject(singulars[name], count=count)
    if (found := _COUNT.match(text)) is None:
        return None
    inner = _MODIFIERS.match(found["rest"])
    if inner is None or inner["name"] not in plurals:
        return None
    style = inner["style"] or inner["late"]
    return PromptObject(plurals[inner["name"]], style, NUMBERS.index(found["count"]))


@lru_cache(maxsize=1)
def _names() -> tuple[dict[str, str], dict[str, str]]:
    """Concepts by what one of them is called in a normalised prompt, and by their plurals."""
    concepts = load_concepts()
    singulars = {normalize_prompt(concept.name): concept.name for concept in concepts}
    plurals = {normalize_prompt(c.plural): c.name for c in concepts}
    plurals |= {name: c for name, c in singulars.items() if is_plural_only(c)}
    return singulars, plurals
