"""The prompts of EmojiEval: six tasks, and a true scene for each prompt.

The prompts are fixed in `eval_prompts/test.json` and `dev.json`; `write_prompts` makes these files
again, byte for byte. The two share no text. Figures are reported on test; every choice (guidance,
learning rate, method) is made on dev.
"""

from __future__ import annotations

import json
import random
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path

from flowsteer.emoji.art_sources import STYLES
from flowsteer.emoji.captions import NUMBERS, background_words, place_words
from flowsteer.emoji.concepts import Concept, is_plural_only, load_concepts
from flowsteer.emoji.scenes import (
    COLORS,
    PLACES,
    Background,
    Scene,
    SceneObject,
    World,
    draw_scene,
    held_out_style,
    pair_held_out,
    place_name,
)

TASKS = ("single", "two_objects", "counting", "colors", "position", "style")
RELATIONS = ("left of", "right of", "above", "below")
PROMPTS_FOLDER = Path(__file__).parent / "eval_prompts"
PROMPTS_PER_TASK = {"test": 200, "dev": 100}

_FIRST_SEED = {"test": 1_000_000, "dev": 2_000_000}
_HELD_OUT_SHARE = 0.1  # of prompts that can be; a little above the world's own 5%
_TRIES = 100_000


@dataclass(frozen=True)
class PromptObject:
    """An object a prompt names: its concept, its style if told, and how many of it."""

    concept: str
    style: str | None = None
    count: int = 1


@dataclass(frozen=True)
class EvalPrompt:
    """A prompt and all that it names.

    Attributes:
        text: the prompt.
        task: one of TASKS.
        objects: one or two.
        background: one of COLORS, two for a gradient from the first to the second (top, left or
            top left first), or None if not told.
        relation: one of RELATIONS, of the first object to the second.
        place: a name in `scenes.PLACES`, of the only object.
        held_out: whether it names a (concept, style) or concept pair left out of training.
        seed: of the noise its picture is made from.
    """

    text: str
    task: str
    objects: tuple[PromptObject, ...]
    background: tuple[str, ...] | None = None
    relation: str | None = None
    place: str | None = None
    held_out: bool = False
    seed: int = 0


def load_prompts(split: str, num_prompts: int | None = None) -> list[EvalPrompt]:
    """The first `num_prompts` prompts of a split, all by default.

    The tasks take turns in the file, so any number of prompts holds equal shares of the six, but
    for one.

    Args:
        split: "test" (1,200 prompts) or "dev" (600).
        num_prompts: how many.

    Raises:
        ValueError: if there is no such split, or num_prompts is not between 6 and its size.
    """
    if split not in PROMPTS_PER_TASK:
        raise ValueError(f"no split {split!r}; use one of {', '.join(PROMPTS_PER_TASK)}")
    prompts = _read(split)
    if num_prompts is None:
        return list(prompts)
    if not isinstance(num_prompts, int) or not len(TASKS) <= num_prompts <= len(prompts):
        raise ValueError(
            f"num_prompts is {num_prompts}; split {split!r} takes {len(TASKS)} to {len(prompts)}"
        )
    return list(prompts[:num_prompts])


@lru_cache(maxsize=2)
def _read(split: str) -> tuple[EvalPrompt, ...]:
    rows = json.loads((PROMPTS_FOLDER / f"{split}.json").read_text(encoding="utf-8"))
    return tuple(_from_row(row) for row in rows)


def write_prompts(folder: Path = PROMPTS_FOLDER) -> list[Path]:
    """Draw both splits and write them to folder/test.json and folder/dev.json."""
    folder.mkdir(parents=True, exist_ok=True)
    taken: set[str] = set()
    paths = []
    for split, per_task in PROMPTS_PER_TASK.items():
        prompts = draw_prompts(per_task, random.Random(f"EmojiEval/{split}"), taken)
        taken |= {prompt.text for prompt in prompts}
        first = _FIRST_SEED[split]
        rows = [_to_row(replace(p, seed=first + i)) for i, p in enumerate(prompts)]
        paths.append(folder / f"{split}.json")
        paths[-1].write_text("[\n" + ",\n".join(rows) + "\n]\n", encoding="utf-8")
    return paths


def _to_row(prompt: EvalPrompt) -> str:
    defaults = {"style": None, "count": 1, "background": None, "relation": None, "place": None}

    def told(row: dict) -> dict:
        return {k: v for k, v in row.items() if k not in defaults or v != defaults[k]}

    row = told(asdict(prompt))
    row["objects"] = [told(thing) for thing in row["objects"]]
    return json.dumps(row, ensure_ascii=False)


def _from_row(row: dict) -> EvalPrompt:
    objects = tuple(PromptObject(**thing) for thing in row["objects"])
    background = tuple(row["background"]) if "background" in row else None
    return EvalPrompt(**{**row, "objects": objects, "background": background})


def draw_prompts(
    per_task: int, rng: random.Random, taken: Collection[str] = ()
) -> list[EvalPrompt]:
    """Draw `per_task` prompts of each task, in turns; no two the same, none in `taken`."""
    concepts = load_concepts()
    used = set(taken)
    prompts = []
    for _ in range(per_task):
        for task in TASKS:
            prompt = _DRAW[task](rng, concepts)
            while prompt.text in used:
                prompt = _DRAW[task](rng, concepts)
            used.add(prompt.text)
            prompts.append(prompt)
    return prompts


def _single(rng: random.Random, concepts: Sequence[Concept]) -> EvalPrompt:
    concept = rng.choice(concepts)
    text = _phrase(concept) if rng.random() < 0.7 else concept.name
    return EvalPrompt(text, "single", (PromptObject(concept.name),))


def _two_objects(rng: random.Random, concepts: Sequence[Concept]) -> EvalPrompt:
    pair, held_out = _draw_pair(rng, concepts)
    joint = rng.choice(("and", "and", "next to"))
    text = f" {joint} ".join(_phrase(concept) for concept in pair)
    objects = tuple(PromptObject(concept.name) for concept in pair)
    return EvalPrompt(text, "two_objects", objects, held_out=held_out)


def _counting(rng: random.Random, concepts: Sequence[Concept]) -> EvalPrompt:
    concept, count = rng.choice(concepts), rng.choice((2, 3, 4))
    text = f"{NUMBERS[count]} {concept.plural}"
    return EvalPrompt(text, "counting", (PromptObject(concept.name, count=count),))


def _colors(rng: random.Random, concepts: Sequence[Concept]) -> EvalPrompt:
    concept = rng.choice(concepts)
    colors = rng.sample(range(len(COLORS)), 2 if rng.random() < 0.3 else 1)
    words = background_words(rng, Background(tuple(colors)))
    # Not "pink background" alone, which reads badly after a noun; and no direction, which is free.
    while not words.startswith("on ") or "vertical" in words:
        words = background_words(rng, Background(tuple(colors)))
    background = tuple(COLORS[color] for color in colors)
    text = f"{_phrase(concept)} {words}"
    return EvalPrompt(text, "colors", (PromptObject(concept.name),), background)


def _position(rng: random.Random, concepts: Sequence[Concept]) -> EvalPrompt:
    if rng.random() < 0.5:
        concept, place = rng.choice(concepts), rng.choice([p for row in PLACES for p in row])
        text = f"{_phrase(concept)} {place_words(rng, place)}"
        return EvalPrompt(text, "position", (PromptObject(concept.name),), place=place)
    (first, second), held_out = _draw_pair(rng, concepts)
    relation = rng.choice(RELATIONS)
    text = f"{_phrase(first)} {relation} {_phrase(second)}"
    objects = (PromptObject(first.name), PromptObject(second.name))
    return EvalPrompt(text, "position", objects, relation=relation, held_out=held_out)


def _style(rng: random.Random, concepts: Sequence[Concept]) -> EvalPrompt:
    """One styled object in a third of the prompts, else two in different styles."""
    count = 1 if rng.random() < 1 / 3 else 2
    wanted = rng.random() < _HELD_OUT_SHARE
    held_out = not wanted
    while held_out != wanted:
        numbers = rng.sample(range(len(concepts)), count)
        styles = rng.sample(range(len(STYLES)), count)
        held_out = any(held_out_style(n) == s for n, s in zip(numbers, styles, strict=True))
        held_out |= count == 2 and pair_held_out(*numbers)
    named = [(concepts[n], STYLES[s]) for n, s in zip(numbers, styles, strict=True)]
    text = " and ".join(_phrase(concept, style) for concept, style in named)
    objects = tuple(PromptObject(concept.name, style) for concept, style in named)
    return EvalPrompt(text, "style", objects, held_out=held_out)


_DRAW = {
    "single": _single,
    "two_objects": _two_objects,
    "counting": _counting,
    "colors": _colors,
    "position": _position,
    "style": _style,
}


def _draw_pair(
    rng: random.Random, concepts: Sequence[Concept]
) -> tuple[tuple[Concept, Concept], bool]:
    wanted = rng.random() < _HELD_OUT_SHARE
    while True:
        first, second = rng.sample(range(len(concepts)), 2)
        if pair_held_out(first, second) == wanted:
            return (concepts[first], concepts[second]), wanted


def _phrase(concept: Concept, style: str | None = None) -> str:
    """A noun with its article: "a koala", "a 3d koala", "grapes"."""
    words = f"{style} {concept.name}" if style else concept.name
    if is_plural_only(concept.name):
        return words
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def true_scene_for(prompt: EvalPrompt, seed: int, world: World) -> Scene:
    """A scene that shows all that a prompt names; what it leaves open is drawn from the world.

    Scenes are drawn until one fits in kind, number and place; concepts, and what else is named,
    are then put in.

    Raises:
        ValueError: if the prompt names a concept, style or colour that the world does not have.
    """
    rng = random.Random(f"true scene/{seed}")
    kinds = _kinds(prompt)
    total = sum(thing.count for thing in prompt.objects)
    for _ in range(_TRIES):
        scene = draw_scene(rng, world)
        if scene.kind not in kinds or len(scene.objects) != total:
            continue
        if prompt.place in (None, place_name(scene.objects[0].x, scene.objects[0].y)):
            return _filled(scene, prompt, rng)
    raise ValueError(f"no scene shows {prompt.text!r}; name up to 4 of one object, or two objects")


def _kinds(prompt: EvalPrompt) -> tuple[str, ...]:
    if prompt.relation is not None:
        return ("left",) if prompt.relation in ("left of", "right of") else ("above",)
    if len(prompt.objects) == 2:
        return ("left", "above")
    return ("single",) if prompt.objects[0].count == 1 else ("count",)


def _filled(scene: Scene, prompt: EvalPrompt, rng: random.Random) -> Scene:
    numbers = {concept.name: n for n, concept in enumerate(load_concepts())}
    named = [thing for thing in prompt.objects for _ in range(thing.count)]
    turned = prompt.relation in ("right of", "below")
    if turned or (prompt.relation is None and len(prompt.objects) == 2 and rng.random() < 0.5):
        named.reverse()  # scenes hold the left or upper object first
    try:
        objects = [
            _named(o, numbers[thing.concept], thing.style)
            for o, thing in zip(scene.objects, named, strict=True)
        ]
        colors = tuple(COLORS.index(color) for color in prompt.background or ())
    except (KeyError, ValueError) as error:
        raise ValueError(f"the world has no {error} as {prompt.text!r} names it") from error
    background = scene.background
    if colors:
        background = Background(colors, background.direction)
    return Scene(scene.kind, tuple(objects), background)


def _named(thing: SceneObject, concept: int, style: str | None) -> SceneObject:
    number = thing.style if style is None else STYLES.index(style)
    return replace(thing, concept=concept, style=number)
