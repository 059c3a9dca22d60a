"""What the detector is taught: targets from a scene's truth, and pictures made a little worse."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from flowsteer.emoji.detector import GRID_SIZE, Detector

HEAT_RADIUS = 0.08  # the heatmap's standard deviation, in units of the object's size
NAME_RADIUS = 1.0  # in cells: how far from the centre a cell still has to name the object


class Truth(NamedTuple):
    """Where and what the objects of a batch are; m slots a scene, empty ones not present."""

    concept: Tensor  # (b, m) long
    style: Tensor  # (b, m) long
    x: Tensor  # (b, m) centre, fraction of the canvas
    y: Tensor  # (b, m)
    size: Tensor  # (b, m) fraction of the canvas
    present: Tensor  # (b, m) bool


class DetectorLoss(NamedTuple):
    """The terms of the loss; total is what is minimised."""

    total: Tensor
    heat: Tensor
    box: Tensor
    concept: Tensor
    style: Tensor


def detector_loss(detector: Detector, images: Tensor, truth: Truth) -> DetectorLoss:
    """Focal loss on centres, L1 on boxes, cross entropy on concepts and styles.

    Boxes and names are taught at the 3x3 cells around each centre, weighted by their distance:
    on a blurred picture the peak may fall on a neighbour, which must then know as much.

    Args:
        detector: the network, or a compiled wrapper with its ``classify``.
        images: (b, 3, 128, 128) in [-1, 1].
        truth: of the same b scenes.
    """
    maps = detector(images)
    heat = centre_loss(maps.heat.float(), truth)
    cell, inside = _neighbours(truth)  # (b, m, 9, 2) x and y, (b, m, 9)
    index = (cell[..., 1] * GRID_SIZE + cell[..., 0]).flatten(1)  # (b, 9m)
    box = _gather(maps.box, index).float()  # (b * 9m, 3)
    centre = torch.stack([truth.x, truth.y], dim=-1)[:, :, None] * GRID_SIZE
    offset = centre - (cell + 0.5)  # (b, m, 9, 2)
    log_size = truth.size.clamp(min=1e-3).log()[..., None, None].expand(*offset.shape[:-1], 1)
    distance = offset.square().sum(-1)
    weight = torch.exp(-distance / (2 * NAME_RADIUS**2)) * inside * truth.present[..., None]
    weight = (weight / weight.sum().clamp(min=1e-6)).flatten()  # (b * 9m,), sums to 1
    target = torch.cat([offset, log_size], dim=-1).flatten(0, 2)
    with torch.autocast(images.device.type, enabled=False):  # bf16 is too coarse for cosines
        concept, style = detector.classify(_gather(maps.embedding, index).float())
    names = [t[..., None].expand_as(inside).flatten() for t in (truth.concept, truth.style)]
    box_loss = (weight[:, None] * (box - target).abs()).sum()
    concept_loss = (weight * F.cross_entropy(concept.float(), names[0], reduction="none")).sum()
    style_loss = (weight * F.cross_entropy(style.float(), names[1], reduction="none")).sum()
    total = heat + box_loss + concept_loss + 0.5 * style_loss
    return DetectorLoss(total, heat, box_loss, concept_loss, style_loss)


def centre_heatmap(truth: Truth) -> Tensor:
    """(b, h, w) target: 1 in the cell of each present centre, a Gaussian of its size around it."""
    axis = torch.arange(GRID_SIZE, device=truth.x.device)
    cell_x, cell_y = (_cell(v)[..., None] for v in (truth.x, truth.y))
    deviation = (HEAT_RADIUS * GRID_SIZE * truth.size).clamp(min=0.6)[..., None]
    along_x = torch.exp(-((axis - cell_x) / deviation).square() / 2)  # (b, m, w)
    along_y = torch.exp(-((axis - cell_y) / deviation).square() / 2)  # (b, m, h)
    heat = along_y[..., :, None] * along_x[..., None, :] * truth.present[..., None, None]
    return heat.amax(dim=1)


def centre_loss(logits: Tensor, truth: Truth) -> Tensor:
    """CenterNet's penalty-reduced focal loss (arXiv 1904.07850, equation 1), an object's mean."""
    target = centre_heatmap(truth)
    p = logits.sigmoid()
    at_centre = (1 - p).square() * F.logsigmoid(logits)
    elsewhere = (1 - target).pow(4) * p.square() * F.logsigmoid(-logits)
    loss = torch.where(target == 1, at_centre, elsewhere).sum()
    return -loss / truth.present.sum().clamp(min=1)


def degrade(images: Tensor, generator: torch.Generator) -> Tensor:
    """Make pictures a little worse, as an autoencoder or a few sampling steps would.

    Each picture is blurred, recoloured and covered with fine and coarse noise, by an amount of
    its own, often none. No generated picture is used: the detector must not learn from what it
    is to judge.

    Args:
        images: (b, 3, h, w) in [-1, 1], h and w even.
        generator: of the pictures' device.
    """
    b = len(images)

    def draw(*shape: int) -> Tensor:
        return torch.rand(b, *shape, 1, 1, generator=generator, device=images.device)

    def normal(*shape: int) -> Tensor:
        return torch.randn(b, *shape, generator=generator, device=images.device)

    half = F.interpolate(F.avg_pool2d(images, 2), scale_factor=2.0, mode="bilinear")
    images = images + (1.4 * draw(1) - 0.4).clamp(min=0) * (half - images)
    soft = F.avg_pool2d(images, 3, stride=1, padding=1, count_include_pad=False)
    images = images + (1.6 * draw(1) - 0.8) * (soft - images)  # below 0 it sharpens
    images = images * (1 + 0.1 * normal(3, 1, 1)) + 0.05 * normal(3, 1, 1)
    coarse = F.interpolate(normal(3, 16, 16), size=images.shape[-2:], mode="bilinear")
    images = images + 0.1 * draw(1) * coarse + 0.08 * draw(1).square() * normal(*images.shape[1:])
    return images.clamp(-1, 1)


def _cell(position: Tensor) -> Tensor:
    return (position * GRID_SIZE).long().clamp(0, GRID_SIZE - 1)


def _neighbours(truth: Truth) -> tuple[Tensor, Tensor]:
    step = torch.arange(-1, 2, device=truth.x.device)
    around = torch.cartesian_prod(step, step)  # (9, 2)
    cell = torch.stack([_cell(truth.x), _cell(truth.y)], dim=-1)[:, :, None] + around
    inside = ((cell >= 0) & (cell < GRID_SIZE)).all(dim=-1)
    return cell.clamp(0, GRID_SIZE - 1), inside


def _gather(maps: Tensor, index: Tensor) -> Tensor:
    columns = maps.flatten(2)  # (b, c, h * w)
    picked = columns.gather(2, index[:, None].expand(-1, columns.shape[1], -1))
    return picked.transpose(1, 2).flatten(0, 1)
