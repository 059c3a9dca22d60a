"""The colours of a picture's background: one, or the two ends of a gradient."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from flowsteer.emoji.detector import Detection
from flowsteer.emoji.scenes import COLOR_RGB

_MARGINS = (1.3, 1.0, 0.8)  # of the boxes left out; a turned square reaches 1.28 of its side
_ENOUGH = 0.03  # share of the canvas that is background enough to go by
_FITS = 8
_NOISE = 0.02  # residuals below this count alike, in units of the full range of a channel


def background_colors(image: Tensor, detections: Sequence[Detection]) -> tuple[int, ...]:
    """Numbers into COLORS: one for a plain background, two for a gradient, top or left end first.

    A plane is fitted to the colours outside the objects' boxes by least absolute deviations, so
    that a stray shadow or an object that was missed weighs little; on a plain background that is
    the median. Its ends are named by the nearest of the ten colours.

    Args:
        image: (3, h, w) in [-1, 1].
        detections: the objects in it, as `Detector.detect` finds them.
    """
    image = (image.detach().float().cpu()[:, ::2, ::2].clamp(-1, 1) + 1) / 2
    height, width = image.shape[1:]
    y = (torch.arange(height) + 0.5)[:, None].expand(height, width) / height
    x = (torch.arange(width) + 0.5)[None].expand(height, width) / width
    outside = _outside(x, y, detections)
    design = torch.stack([torch.ones_like(x), x - 0.5, y - 0.5], dim=-1)[outside]  # (n, 3)
    plane = _least_absolute(design.double(), image[:, outside].T.double())
    ends = [_nearest(color) for color in _gradient_ends(plane)]
    return (ends[0],) if ends[0] == ends[1] else tuple(ends)


def _outside(x: Tensor, y: Tensor, detections: Sequence[Detection]) -> Tensor:
    for margin in _MARGINS:
        outside = torch.ones_like(x, dtype=torch.bool)
        for d in detections:
            half = margin * d.size / 2
            outside &= ((x - d.x).abs() > half) | ((y - d.y).abs() > half)
        if outside.float().mean() >= _ENOUGH:
            return outside
    return torch.ones_like(x, dtype=torch.bool)


def _least_absolute(design: Tensor, colors: Tensor) -> Tensor:
    """Plane (3, 3) minimising the sum of |residual|, by iteratively reweighted least squares."""
    weight = torch.ones(len(design), 1, dtype=design.dtype)
    ridge = 1e-6 * len(design) * torch.eye(design.shape[1], dtype=design.dtype)
    for _ in range(_FITS):
        weighted = design * weight
        plane = torch.linalg.solve(weighted.T @ design + ridge, weighted.T @ colors)
        residual = (design @ plane - colors).norm(dim=1, keepdim=True)
        weight = _NOISE / residual.clamp(min=_NOISE)
    return plane


def _gradient_ends(plane: Tensor) -> tuple[Tensor, Tensor]:
    """Colours at the two ends of the direction in which the plane runs: (3,) each."""
    centre, across, down = plane
    steepness = across.norm(), down.norm()
    if 2 * steepness[0] < steepness[1]:
        slope = down
    elif 2 * steepness[1] < steepness[0]:
        slope = across
    else:
        slope = across + down
    return centre - slope / 2, centre + slope / 2


def _nearest(color: Tensor) -> int:
    palette = torch.tensor(COLOR_RGB, dtype=color.dtype) / 255
    return int((palette - color.clamp(0, 1)).norm(dim=1).argmin())
