"""Scenes: what is drawn where. A scene knows its own truth; a caption tells a part of it."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from flowsteer.emoji.art_sources import STYLES
from flowsteer.emoji.concepts import Concept, load_concepts

COLORS = (
    "red",
    "orange",
    "yellow",
    "green",
    "blue",
    "purple",
    "pink",
    "brown",
    "gray",
    "white",
)
"""Names of the ten background colours; a colour's number is its place here."""

COLOR_RGB = (
    (222, 48, 48),
    (248, 140, 36),
    (253, 226, 84),
    (64, 172, 84),
    (56, 116, 226),
    (136, 72, 196),
    (250, 158, 200),
    (122, 78, 50),
    (134, 138, 144),
    (250, 250, 250),
)
"""Their sRGB values; any two differ by at least 84 in Euclidean distance."""

DIRECTIONS = ("vertical", "horizontal", "diagonal")
KINDS = ("single", "left", "above", "count")
MAX_OBJECTS = 4
MAX_ANGLE = 20.0
"""Largest turn of an object in degrees, either way."""

PLACES = (
    ("top left", "top", "top right"),
    ("left", "middle", "right"),
    ("bottom left", "bottom", "bottom right"),
)
_SIDE, _MIDDLE = 0.40, 0.07


@dataclass(frozen=True)
class SceneObject:
    """One emoji in a scene.

    Attributes:
        concept: number of the concept, as in `Art.concepts`.
        style: number of the style, as in STYLES.
        x, y: centre, in fractions of the canvas, x to the right and y down.
        size: side of the sprite's square in fractions of the canvas.
        angle: turn in degrees, counter-clockwise as seen.
    """

    concept: int
    style: int
    x: float
    y: float
    size: float
    angle: float


@dataclass(frozen=True)
class Background:
    """One colour, or two for a gradient (numbers into COLORS), and the gradient's direction.

    A vertical gradient runs from top to bottom, a horizontal one from left to right, a diagonal
    one from the top left to the bottom right corner.
    """

    colors: tuple[int, ...]
    direction: str = "vertical"


@dataclass(frozen=True)
class Scene:
    """A picture's whole truth.

    Attributes:
        kind: "single"; "left" (objects[0] is left of objects[1]); "above" (objects[0] is above
            objects[1]); "count" (two to four of the same concept and style).
        objects: one to four, none overlapping, all inside the canvas.
        background: its colours.
    """

    kind: str
    objects: tuple[SceneObject, ...]
    background: Background


def place_name(x: float, y: float) -> str | None:
    """The cell of PLACES a centre clearly lies in, or None near a border between cells."""
    cells = []
    for value in (y, x):
        if value <= _SIDE:
            cells.append(0)
        elif abs(value - 0.5) <= _MIDDLE:
            cells.append(1)
        elif value >= 1 - _SIDE:
            cells.append(2)
        else:
            return None
    return PLACES[cells[0]][cells[1]]


def _mix(number: int) -> int:
    """A fixed 32-bit scrambling of an integer (the finaliser of MurmurHash3)."""
    number &= 0xFFFFFFFF
    number = ((number ^ (number >> 16)) * 0x85EBCA6B) & 0xFFFFFFFF
    number = ((number ^ (number >> 13)) * 0xC2B2AE35) & 0xFFFFFFFF
    return number ^ (number >> 16)


def held_out_style(concept: int) -> int | None:
    """The style in which a concept is never drawn in training: one style of every fifth concept."""
    scrambled = _mix(concept + 1)
    return (scrambled // 5) % len(STYLES) if scrambled % 5 == 0 else None


def pair_held_out(first: int, second: int) -> bool:
    """Whether two concepts are never drawn together in training: one pair in twenty."""
    low, high = sorted((first, second))
    return _mix((low << 16) + high + 0x5EED) % 20 == 0


def held_out_json(concepts: Sequence[Concept]) -> str:
    """All that training leaves out, as JSON text: names for styles, numbers for pairs."""
    count = len(concepts)
    styles = [
        [concept.name, STYLES[style]]
        for number, concept in enumerate(concepts)
        if (style := held_out_style(number)) is not None
    ]
    pairs = {
        str(low): highs
        for low in range(count)
        if (highs := [high for high in range(low + 1, count) if pair_held_out(low, high)])
    }
    rule = "concept_styles: [name, style]; concept_pairs: number in concepts.json -> larger ones"
    content = {"rule": rule, "concept_styles": styles, "concept_pairs": pairs}
    return json.dumps(content, separators=(",", ":")).replace("],", "],\n") + "\n"


@dataclass(frozen=True)
class World:
    """What scenes may show.

    Attributes:
        num_concepts: concepts to draw from, the first so many.
        training: True leaves out the held-out (concept, style) and concept pairs; False draws
            from everything.

    Raises:
        ValueError: if num_concepts is not between 2 and the number of concepts of the art.
    """

    num_concepts: int
    training: bool = False

    def __post_init__(self) -> None:
        """Check the number of concepts."""
        limit = len(load_concepts())
        if not 2 <= self.num_concepts <= limit:
            raise ValueError(f"num_concepts is {self.num_concepts}; use 2 to {limit}")

    def allows_style(self, concept: int, style: int) -> bool:
        """Whether the concept may be drawn in the style."""
        return not (self.training and held_out_style(concept) == style)

    def allows_pair(self, first: int, second: int) -> bool:
        """Whether two different concepts may stand in one scene."""
        return first != second and not (self.training and pair_held_out(first, second))

    def draw_concept(self, rng: random.Random) -> int:
        """A concept, all alike likely."""
        return int(rng.random() * self.num_concepts)

    def draw_style(self, rng: random.Random, concept: int) -> int:
        """A style the concept may have."""
        style = int(rng.random() * len(STYLES))
        while not self.allows_style(concept, style):
            style = int(rng.random() * len(STYLES))
        return style

    def draw_pair(self, rng: random.Random) -> tuple[int, int]:
        """Two different concepts that may stand together."""
        while True:
            first, second = self.draw_concept(rng), self.draw_concept(rng)
            if self.allows_pair(first, second):
                return first, second


def _extent(size: float, angle: float) -> float:
    """Side of the upright box around a turned square."""
    turn = math.radians(angle)
    return size * (math.cos(turn) + abs(math.sin(turn)))


def _angle_within(rng: random.Random, size: float, room: float) -> float:
    """A turn of up to MAX_ANGLE whose box fits in `room`, made smaller until it does."""
    angle = rng.uniform(-MAX_ANGLE, MAX_ANGLE)
    while _extent(size, angle) > room:
        angle = 0.5 * angle if abs(angle) > 0.1 else 0.0
    return angle


def _draw_background(rng: random.Random) -> Background:
    first = int(rng.random() * len(COLORS))
    if rng.random() < 0.6:
        return Background((first,))
    second = (first + 1 + int(rng.random() * (len(COLORS) - 1))) % len(COLORS)
    return Background((first, second), DIRECTIONS[int(rng.random() * 3)])


def _draw_single(rng: random.Random, world: World) -> tuple[SceneObject, ...]:
    concept = world.draw_concept(rng)
    style = world.draw_style(rng, concept)
    size = rng.uniform(0.35, 0.85)
    angle = _angle_within(rng, size, 0.99)
    half = 0.5 * _extent(size, angle)
    x, y = rng.uniform(half, 1 - half), rng.uniform(half, 1 - half)
    return (SceneObject(concept, style, x, y, size, angle),)


def _draw_two(rng: random.Random, world: World, above: bool) -> tuple[SceneObject, ...]:
    """Two objects with a gap between them; across, they differ by at most 0.6 of the distance."""
    concepts = world.draw_pair(rng)
    sizes = [rng.uniform(0.33, 0.5), rng.uniform(0.33, 0.5)]
    angles = [rng.uniform(-MAX_ANGLE, MAX_ANGLE) for _ in sizes]
    boxes = [_extent(s, a) for s, a in zip(sizes, angles, strict=True)]
    shrink = min(1.0, 0.97 / (boxes[0] + boxes[1]))
    sizes = [s * shrink for s in sizes]
    boxes = [b * shrink for b in boxes]
    room = 1 - boxes[0] - boxes[1]
    cuts = sorted((rng.random(), rng.random()))
    along = [room * cuts[0] + 0.5 * boxes[0], 1 - room * (1 - cuts[1]) - 0.5 * boxes[1]]
    across = [rng.uniform(0.5 * boxes[0], 1 - 0.5 * boxes[0])]
    reach = 0.6 * (along[1] - along[0])
    low, high = max(0.5 * boxes[1], across[0] - reach), min(1 - 0.5 * boxes[1], across[0] + reach)
    across.append(rng.uniform(low, high) if low < high else 0.5 * (low + high))
    objects = []
    for k in (0, 1):
        x, y = (across[k], along[k]) if above else (along[k], across[k])
        style = world.draw_style(rng, concepts[k])
        objects.append(SceneObject(concepts[k], style, x, y, sizes[k], angles[k]))
    return tuple(objects)


_LAYOUTS = {  # (rows, columns) of cells, of which as many are taken as there are copies
    2: ((1, 2), (2, 1), (2, 2), (2, 2), (3, 3)),
    3: ((1, 3), (3, 1), (2, 2), (2, 2), (2, 3), (3, 2), (3, 3)),
    4: ((2, 2), (2, 2), (2, 3), (3, 2), (3, 3)),
}


def _draw_count(rng: random.Random, world: World) -> tuple[SceneObject, ...]:
    concept = world.draw_concept(rng)
    style = world.draw_style(rng, concept)
    copies = 2 + int(rng.random() * 3)
    rows, columns = rng.choice(_LAYOUTS[copies])
    room = 0.985 / max(rows, columns)
    base = rng.uniform(0.28, min(0.48, room))
    objects = []
    for cell in rng.sample(range(rows * columns), copies):
        size = max(0.27, min(base * rng.uniform(0.9, 1.1), room))
        angle = _angle_within(rng, size, room)
        half = 0.5 * _extent(size, angle)
        row, column = divmod(cell, columns)
        x = rng.uniform(column / columns + half, (column + 1) / columns - half)
        y = rng.uniform(row / rows + half, (row + 1) / rows - half)
        objects.append(SceneObject(concept, style, x, y, size, angle))
    return tuple(objects)


def draw_scene(rng: random.Random, world: World) -> Scene:
    """Draw a scene: 40% single, 35% two objects (17.5% a relation), 25% two to four of the same.

    Args:
        rng: the source of all randomness.
        world: what may be shown.
    """
    background = _draw_background(rng)
    pick = rng.random()
    if pick < 0.4:
        return Scene("single", _draw_single(rng, world), background)
    if pick < 0.65:
        return Scene("count", _draw_count(rng, world), background)
    above = pick >= 0.825
    return Scene("above" if above else "left", _draw_two(rng, world, above), background)


def scene_from_seed(seed: int, world: World) -> Scene:
    """The scene of a seed, always the same one."""
    return draw_scene(random.Random(f"scene/{seed}"), world)
