"""Turning scenes into pictures, a batch at a time, on CPU or GPU, with torch alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from flowsteer.emoji.art import Art
from flowsteer.emoji.scenes import COLOR_RGB, DIRECTIONS, MAX_OBJECTS, Scene

LEVELS = (112, 80, 56, 40)
"""Sides of the sprites kept for drawing; an object is drawn from the smallest not below its own."""


class SceneTensors(NamedTuple):
    """b scenes as tensors; objects fill the slots from the front.

    Attributes:
        sprite: int64 (b, 4, 2) concept and style, -1 where a slot is empty.
        place: float32 (b, 4, 4) x, y, size (fractions of the canvas), angle (degrees).
        background: int64 (b, 3) first and last colour (equal if plain), direction.
    """

    sprite: Tensor
    place: Tensor
    background: Tensor

    def to(self, device: torch.device | str) -> SceneTensors:
        """The same scenes on another device."""
        return SceneTensors(*(tensor.to(device, non_blocking=True) for tensor in self))


def pack_scenes(scenes: Sequence[Scene]) -> SceneTensors:
    """Scenes as tensors, for `Renderer`."""
    sprites: list[int] = []
    places: list[float] = []
    backgrounds: list[int] = []
    for scene in scenes:
        empty = MAX_OBJECTS - len(scene.objects)
        for o in scene.objects:
            sprites += (o.concept, o.style)
            places += (o.x, o.y, o.size, o.angle)
        sprites += (-1, -1) * empty
        places += (0.0, 0.0, 1.0, 0.0) * empty
        colors = scene.background.colors
        backgrounds += (colors[0], colors[-1], DIRECTIONS.index(scene.background.direction))
    count = len(scenes)
    return SceneTensors(
        torch.tensor(sprites, dtype=torch.int64).view(count, MAX_OBJECTS, 2),
        torch.tensor(places, dtype=torch.float32).view(count, MAX_OBJECTS, 4),
        torch.tensor(backgrounds, dtype=torch.int64).view(count, 3),
    )


def _shrunk(pictures: Tensor, side: int) -> Tensor:
    """Premultiplied uint8 sprites (n, 4, side, side) from straight-alpha ones (n, h, w, 4)."""
    levels = []
    for chunk in pictures.split(128):
        colors = chunk.permute(0, 3, 1, 2).float()
        colors[:, :3] *= colors[:, 3:] / 255
        if side != colors.shape[-1]:
            colors = F.interpolate(colors, (side, side), mode="bilinear", antialias=True)
        levels.append(colors.round_().clamp_(0, 255).to(torch.uint8))
    return torch.cat(levels)


class Renderer:
    """Draws scenes.

    Objects are turned and scaled by bilinear sampling from premultiplied sprites at the nearest
    larger of four sizes, so that shrinking does not alias, and laid over the background.

    Args:
        art: sprites, as from `load_art`.
        device: where to draw.
        size: side of the pictures in pixels.
    """

    def __init__(self, art: Art, device: torch.device | str = "cpu", size: int = 128) -> None:
        self.size = size
        self.num_concepts, self.num_styles = art.pictures.shape[:2]
        sprites = art.pictures.flatten(0, 1).to(device)
        self._levels = [_shrunk(sprites, side) for side in LEVELS]
        self._colors = torch.tensor(COLOR_RGB, device=device, dtype=torch.float32) / 255
        steps = (torch.arange(size, device=device, dtype=torch.float32) + 0.5) / size
        self._y, self._x = torch.meshgrid(steps, steps, indexing="ij")
        # How far along the gradient each pixel lies, for the three DIRECTIONS.
        ramps = torch.stack([self._y, self._x, 0.5 * (self._x + self._y)])
        self._ramps = (ramps * size - 0.5) / (size - 1)

    @torch.no_grad()
    def __call__(self, scenes: SceneTensors) -> Tensor:
        """Pictures of the scenes.

        Args:
            scenes: b scenes, on the renderer's device or any other.

        Returns:
            float32 (b, 3, size, size) in [-1, 1].
        """
        scenes = scenes.to(self._x.device)
        canvas = self._backgrounds(scenes.background)
        for slot in range(MAX_OBJECTS):
            rows = (scenes.sprite[:, slot, 0] >= 0).nonzero()[:, 0]
            if len(rows):
                layer = self._objects(scenes.sprite[rows, slot], scenes.place[rows, slot])
                canvas[rows] = canvas[rows] * (1 - layer[:, 3:]) + layer[:, :3]
        return canvas.mul_(2).sub_(1).clamp_(-1, 1)

    def _backgrounds(self, background: Tensor) -> Tensor:
        """(b, 3, size, size) in [0, 1]."""
        first, last = self._colors[background[:, 0]], self._colors[background[:, 1]]
        ramp = self._ramps[background[:, 2]][:, None]
        return torch.lerp(first[:, :, None, None], last[:, :, None, None], ramp)

    def _objects(self, sprite: Tensor, place: Tensor) -> Tensor:
        """Premultiplied layers (n, 4, size, size) in [0, 1] of n objects."""
        number = sprite[:, 0] * self.num_styles + sprite[:, 1]
        x, y, size, angle = place[:, :, None, None].unbind(1)
        turn = angle * (math.pi / 180)
        # From the canvas back to the sprite: centre, turn back, scale to [-1, 1].
        dx, dy = self._x - x, self._y - y
        across = (dx * turn.cos() - dy * turn.sin()) * (2 / size)
        down = (dx * turn.sin() + dy * turn.cos()) * (2 / size)
        grid = torch.stack([across, down], dim=-1)
        pixels = place[:, 2] * self.size
        layers = torch.empty(len(number), 4, self.size, self.size, device=grid.device)
        for side, following, level in zip(LEVELS, (*LEVELS[1:], 0), self._levels, strict=True):
            fits = pixels > following
            if side != LEVELS[0]:
                fits &= pixels <= side
            rows = fits.nonzero()[:, 0]
            if len(rows):
                texture = level[number[rows]].float() / 255
                layers[rows] = F.grid_sample(texture, grid[rows], align_corners=False)
        return layers
