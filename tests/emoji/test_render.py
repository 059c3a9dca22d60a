from __future__ import annotations

import random

import pytest
import torch

from flowsteer.emoji.art import Art
from flowsteer.emoji.concepts import load_concepts
from flowsteer.emoji.render import Renderer, pack_scenes
from flowsteer.emoji.scenes import (
    COLOR_RGB,
    COLORS,
    Background,
    Scene,
    SceneObject,
    World,
    draw_scene,
)

GRAY = Background((COLORS.index("gray"),))


@pytest.fixture(scope="module")
def renderer():
    """Two concepts: a red square, and a square with only its upper right quarter, in blue."""
    pictures = torch.zeros(2, 4, 112, 112, 4, dtype=torch.uint8)
    pictures[0, :, 1:-1, 1:-1] = torch.tensor([255, 0, 0, 255], dtype=torch.uint8)
    pictures[1, :, 1:56, 56:-1] = torch.tensor([0, 0, 255, 255], dtype=torch.uint8)
    return Renderer(Art(load_concepts()[:2], pictures))


def draw(renderer, *objects, background=GRAY):
    kind = "single" if len(objects) == 1 else "left"
    return renderer(pack_scenes([Scene(kind, objects, background)]))[0]


def rgb(name):
    return torch.tensor(COLOR_RGB[COLORS.index(name)]) / 127.5 - 1


def mass(image, channel):
    """Centre (x, y) and area, as fractions of the canvas, of what differs from the gray."""
    seen = (image - rgb("gray")[:, None, None])[channel].clamp(min=0)
    steps = (torch.arange(128) + 0.5) / 128
    total = seen.sum()
    x, y = (seen.sum(0) * steps).sum() / total, (seen.sum(1) * steps).sum() / total
    return x.item(), y.item(), (total / seen.max() / 128**2).item()


@pytest.mark.parametrize("size", [0.3, 0.4, 0.55, 0.7, 0.85])
def test_an_object_is_where_the_scene_says(renderer, size):
    image = draw(renderer, SceneObject(0, 2, 0.45, 0.53, size, 0.0))
    x, y, area = mass(image, 0)
    assert (x, y) == pytest.approx((0.45, 0.53), abs=0.003)
    assert area == pytest.approx((size * 110 / 112) ** 2, rel=0.03)


def test_turning_is_counter_clockwise_as_seen(renderer):
    straight = mass(draw(renderer, SceneObject(1, 0, 0.5, 0.5, 0.6, 0.0)), 2)
    turned = mass(draw(renderer, SceneObject(1, 0, 0.5, 0.5, 0.6, 20.0)), 2)
    assert straight[0] > 0.6 and straight[1] < 0.4  # the upper right quarter
    assert turned[0] < straight[0] - 0.03 and turned[1] < straight[1]
    assert turned[2] == pytest.approx(straight[2], rel=0.03)


def test_nothing_is_drawn_outside_the_sprite(renderer):
    image = draw(renderer, SceneObject(0, 0, 0.3, 0.3, 0.3, 10.0))
    assert torch.allclose(image[:, 64:, 64:], rgb("gray")[:, None, None].expand(3, 64, 64))


def test_edges_mix_object_and_background_only(renderer):
    """Premultiplied sampling: no dark or light fringe between red and gray."""
    image = draw(renderer, SceneObject(0, 0, 0.5, 0.5, 0.5, 13.0))
    red, gray = torch.tensor([1.0, -1.0, -1.0]), rgb("gray")
    share = ((image[0] - gray[0]) / (red[0] - gray[0]))[None]
    assert share.min() >= -1e-3 and share.max() <= 1 + 1e-3
    expected = gray[:, None, None] + share * (red - gray)[:, None, None]
    assert (image - expected).abs().max() < 0.02


def test_later_objects_are_drawn_beside_earlier_ones(renderer):
    image = draw(
        renderer, SceneObject(0, 0, 0.25, 0.5, 0.3, 0.0), SceneObject(1, 0, 0.75, 0.5, 0.3, 0.0)
    )
    assert image[0, 64, 32] > 0.99 and image[2, 60, 102] > 0.99


@pytest.mark.parametrize(
    ("direction", "first", "last"),
    [
        ("vertical", (0, 64), (127, 64)),
        ("horizontal", (64, 0), (64, 127)),
        ("diagonal", (0, 0), (127, 127)),
    ],
)
def test_gradients_run_from_the_first_colour_to_the_last(renderer, direction, first, last):
    pink, blue = COLORS.index("pink"), COLORS.index("blue")
    tiny = SceneObject(0, 0, 0.5, 0.5, 0.01, 0.0)
    image = draw(renderer, tiny, background=Background((pink, blue), direction))
    assert torch.allclose(image[:, first[0], first[1]], rgb("pink"), atol=1e-5)
    assert torch.allclose(image[:, last[0], last[1]], rgb("blue"), atol=1e-5)
    across = (first[0] + last[0]) // 2, (first[1] + last[1]) // 2
    halfway = 0.5 * (rgb("pink") + rgb("blue"))
    near = image[:, across[0] - 8, across[1] - 8]
    assert (near - halfway).norm() < 0.2 * (rgb("pink") - rgb("blue")).norm()


def test_a_picture_does_not_depend_on_its_batch(renderer):
    rng, world = random.Random(3), World(2)
    scenes = [draw_scene(rng, world) for _ in range(24)]
    together = renderer(pack_scenes(scenes))
    assert together.shape == (24, 3, 128, 128) and together.dtype == torch.float32
    assert together.abs().max() <= 1
    alone = torch.cat([renderer(pack_scenes([scene])) for scene in scenes])
    assert torch.equal(together, alone)
    assert torch.equal(together, renderer(pack_scenes(scenes)))


def test_shrinking_does_not_alias():
    """Fine black and white stripes become an even gray, whatever the size."""
    pictures = torch.full((2, 4, 112, 112, 4), 255, dtype=torch.uint8)
    pictures[:, :, ::2, :, :3] = 0
    striped = Renderer(Art(load_concepts()[:2], pictures))
    for side in (36, 40, 50, 56, 70):
        image = draw(striped, SceneObject(0, 0, 0.5, 0.5, side / 128, 7.0))
        assert image[:, 56:72, 56:72].std() < 0.2, side  # of 1.0 before


def test_packing_fills_slots_from_the_front():
    things = (SceneObject(5, 1, 0.2, 0.3, 0.4, 6.0), SceneObject(7, 3, 0.7, 0.6, 0.5, -2.0))
    packed = pack_scenes([Scene("left", things, Background((3, 9), "diagonal"))])
    assert packed.sprite.tolist() == [[[5, 1], [7, 3], [-1, -1], [-1, -1]]]
    assert packed.place[0, 1].tolist() == pytest.approx([0.7, 0.6, 0.5, -2.0])
    assert packed.background.tolist() == [[3, 9, 2]]
    assert pack_scenes([]).sprite.shape == (0, 4, 2)


def test_other_sizes():
    pictures = torch.zeros(2, 4, 112, 112, 4, dtype=torch.uint8)
    small = Renderer(Art(load_concepts()[:2], pictures), size=64)
    image = small(pack_scenes([Scene("single", (), GRAY)]))
    assert torch.allclose(image, rgb("gray").view(1, 3, 1, 1).expand(1, 3, 64, 64))
