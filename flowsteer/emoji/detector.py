"""A small object detector for emoji scenes: which concepts, in which styles, where.

One anchor-free network in the manner of CenterNet (Zhou et al. 2019, arXiv 1904.07850): a
heatmap whose peaks are object centres, and at every cell the object's size, the centre's offset
from the cell, its style and an embedding that names its concept.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F

from flowsteer.untrusted import read_json, read_tensors

IMAGE_SIZE = 128
STRIDE = 8
GRID_SIZE = IMAGE_SIZE // STRIDE
DETECTOR_FOLDER = Path(__file__).parent / "weights" / "detector"

SCORE_THRESHOLD = 0.3  # GenEval's own (arXiv 2310.11513)
OVERLAP_THRESHOLD = 0.4  # intersection over union from which two peaks are one object
MAX_DETECTIONS = 12


@dataclass(frozen=True)
class Detection:
    """One object found in a picture.

    concept and style are positions in ``DetectorConfig.concepts`` and ``.styles``; x, y (the
    centre, y down) and size are fractions of the canvas; score is the peak's height in (0, 1).
    """

    concept: int
    style: int
    x: float
    y: float
    size: float
    score: float


@dataclass(frozen=True)
class DetectorConfig:
    """Names the detector tells apart, and its widths at 1/4, 1/8, and 1/16 and 1/32 resolution."""

    concepts: tuple[str, ...]
    styles: tuple[str, ...]
    widths: tuple[int, int, int] = (64, 128, 192)
    embedding: int = 160

    def __post_init__(self) -> None:
        """Check the names, and turn JSON's lists into tuples."""
        for name in ("concepts", "styles", "widths"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not self.concepts or not self.styles or len(self.widths) != 3:
            raise ValueError(
                f"a detector needs concepts, styles and 3 widths; got {len(self.concepts)}, "
                f"{len(self.styles)} and {len(self.widths)}"
            )


class DetectorMaps(NamedTuple):
    """What the network says at each cell of the (h, w) grid, stride 8."""

    heat: Tensor  # (b, h, w) logits of "an object's centre lies here"
    box: Tensor  # (b, 3, h, w) centre minus cell centre (x, y) in cells, and log size
    embedding: Tensor  # (b, e, h, w), to be read by Detector.classify


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
    )


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, or a bottleneck around one where ``hidden`` is given."""

    def __init__(self, width: int, hidden: int | None = None) -> None:
        """Build a block of (b, width, h, w) -> (b, width, h, w)."""
        super().__init__()
        if hidden is None:
            first, last = [_conv(width, width, 3)], _conv(width, width, 3)
        else:
            first, last = (
                [_conv(width, hidden, 1), _conv(hidden, hidden, 3)],
                _conv(hidden, width, 1),
            )
        self.layers = nn.Sequential(*(m for conv in first for m in (conv, nn.ReLU())), last)
        nn.init.zeros_(last[1].weight)  # type: ignore[arg-type]  # the block starts as identity

    def forward(self, x: Tensor) -> Tensor:
        """Add the block's correction to x."""
        return F.relu(x + self.layers(x))


class Detector(nn.Module):
    """The network, about 1.9 million parameters at the default widths.

    A 4x4 patch stem, stages at 1/4 to 1/32 resolution so that the largest object fits the
    receptive field, and a way back up to 1/8, where the heads sit.
    """

    def __init__(self, config: DetectorConfig) -> None:
        """Build the network with random weights."""
        super().__init__()
        self.config = config
        low, mid, high = config.widths
        self.stem = nn.Sequential(nn.PixelUnshuffle(4), _conv(48, low, 3), nn.ReLU())
        self.stage4 = ResidualBlock(low)
        self.stage8 = nn.Sequential(_conv(low, mid, 3, 2), nn.ReLU(), ResidualBlock(mid))
        self.stage16 = nn.Sequential(
            _conv(mid, high, 3, 2), nn.ReLU(), *(ResidualBlock(high, high // 2) for _ in range(2))
        )
        self.stage32 = nn.Sequential(
            nn.AvgPool2d(2), *(ResidualBlock(high, high // 2) for _ in range(2))
        )
        self.lateral = _conv(high, mid, 1)
        self.neck = ResidualBlock(mid)
        places = nn.Conv2d(low, 4, 1)
        self.place_head = nn.Sequential(_conv(mid, low, 3), nn.ReLU(), places)
        self.name_head = nn.Sequential(
            _conv(mid, config.embedding, 3),
            nn.ReLU(),
            nn.Conv2d(config.embedding, config.embedding, 1),
        )
        self.concept_weight = nn.Parameter(torch.randn(len(config.concepts), config.embedding))
        self.concept_scale = nn.Parameter(torch.tensor(16.0))
        self.style = nn.Linear(config.embedding, len(config.styles))
        nn.init.constant_(places.bias[:1], -4.0)  # type: ignore[index]  # few cells hold a centre

    def _trunk(self, images: Tensor) -> tuple[Tensor, Tensor]:
        at4 = self.stage4(self.stem(images))
        at8 = self.stage8(at4)
        at16 = self.stage16(at8)
        at16 = at16 + F.interpolate(self.stage32(at16), scale_factor=2.0, mode="nearest")
        up = F.interpolate(self.lateral(at16), scale_factor=2.0, mode="nearest")
        return at8, self.neck(F.relu(at8 + up))

    def forward(self, images: Tensor) -> DetectorMaps:
        """Maps of (b, 3, 128, 128) pictures in [-1, 1]; classify() reads the embedding."""
        _, neck = self._trunk(images)
        place = self.place_head(neck)
        return DetectorMaps(place[:, 0], place[:, 1:], self.name_head(neck))

    def classify(self, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """Concept logits (n, c), by scaled cosine, and style logits (n, s) of (n, e) embeddings."""
        cosine = F.linear(F.normalize(embedding, dim=-1), F.normalize(self.concept_weight, dim=-1))
        return cosine * self.concept_scale, self.style(embedding)

    @torch.no_grad()
    def features(self, images: Tensor, batch_size: int = 128) -> Tensor:
        """Mean activations (b, d) float32 on the CPU, for the Frechet distance.

        Half come from the middle of the network, where texture shows, and half from below the
        heads, where names are. Of a picture's two million numbers, d = 256 remain.
        """
        pooled = []
        for batch in self._batches(images, batch_size):
            at8, neck = self._trunk(batch)
            pooled.append(torch.cat([at8.mean((2, 3)), neck.mean((2, 3))], dim=1).float().cpu())
        return torch.cat(pooled)

    @torch.no_grad()
    def detect(
        self, images: Tensor, threshold: float = SCORE_THRESHOLD, batch_size: int = 128
    ) -> list[list[Detection]]:
        """Objects in each of (b, 3, 128, 128) pictures in [-1, 1], highest score first.

        Raises:
            ValueError: if the pictures have another shape or hold a value that is not finite.
        """
        found: list[list[Detection]] = []
        for batch in self._batches(images, batch_size):
            found.extend(self.decode(self(batch), threshold))
        return found

    def _batches(self, images: Tensor, batch_size: int) -> Iterator[Tensor]:
        if images.ndim != 4 or images.shape[1:] != (3, IMAGE_SIZE, IMAGE_SIZE) or not len(images):
            raise ValueError(
                f"images have shape {tuple(images.shape)}; give (b, 3, {IMAGE_SIZE}, {IMAGE_SIZE}) "
                "with b of at least 1"
            )
        if not bool(torch.isfinite(images).all()):
            raise ValueError("images hold NaN or infinity; check the model that made them")
        self.eval()  # batch statistics would make a picture's result depend on its neighbours
        weight = self.concept_weight
        for batch in images.split(batch_size):
            batch = batch.to(weight.device, weight.dtype).clamp(-1, 1)
            yield batch.to(memory_format=torch.channels_last)

    def decode(self, maps: DetectorMaps, threshold: float) -> list[list[Detection]]:
        """Read the objects off the maps: peaks of the heatmap, but for those that overlap."""
        scores = maps.heat.float().sigmoid()
        highest = F.max_pool2d(scores[:, None], 3, stride=1, padding=1)[:, 0]
        scores = torch.where(scores == highest, scores, torch.zeros_like(scores))
        top, cell = scores.flatten(1).topk(MAX_DETECTIONS)  # (b, m)
        rows = torch.arange(len(scores), device=scores.device)[:, None].expand_as(cell)
        y, x = cell // GRID_SIZE, cell % GRID_SIZE
        concept, style = self.classify(maps.embedding[rows, :, y, x].flatten(0, 1))
        names = [logits.argmax(1).view_as(cell).tolist() for logits in (concept, style)]
        box = maps.box[rows, :, y, x].float()  # (b, m, 3)
        centre = (torch.stack([x, y], dim=-1) + 0.5 + box[..., :2]) / GRID_SIZE
        values = torch.cat([centre, box[..., 2:].exp(), top[..., None]], dim=-1).tolist()
        return [
            suppress_overlaps(
                [Detection(c, s, *v) for c, s, v in zip(*row, strict=True) if v[3] >= threshold]
            )
            for row in zip(*names, values, strict=True)
        ]


def suppress_overlaps(detections: list[Detection]) -> list[Detection]:
    """Drop each detection whose box overlaps that of one with a higher score; sorted by score."""
    kept: list[Detection] = []
    for candidate in sorted(detections, key=lambda d: -d.score):
        if all(intersection_over_union(candidate, other) < OVERLAP_THRESHOLD for other in kept):
            kept.append(candidate)
    return kept


def intersection_over_union(a: Detection, b: Detection) -> float:
    """Overlap of two square boxes, in [0, 1]."""
    reach = (a.size + b.size) / 2
    width = min(max(reach - abs(a.x - b.x), 0.0), a.size, b.size)
    height = min(max(reach - abs(a.y - b.y), 0.0), a.size, b.size)
    shared = width * height
    return shared / (a.size**2 + b.size**2 - shared)


def save_detector(detector: Detector, folder: str | Path) -> None:
    """Write config.json and model.safetensors (float16, norms and biases float32) into folder."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        name: (value.half() if value.ndim > 1 else value).detach().cpu().contiguous()
        for name, value in detector.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    text = json.dumps(asdict(detector.config), indent=1, ensure_ascii=False) + "\n"
    contents = {"model.safetensors": save(weights), "config.json": text.encode()}
    for name, content in contents.items():
        (folder / f".{name}").write_bytes(content)
        (folder / f".{name}").replace(folder / name)  # whole, or not there


def load_detector(
    folder: str | Path = DETECTOR_FOLDER, device: str | torch.device | None = None
) -> Detector:
    """The trained detector in float32 and evaluation mode; the bundled one by default.

    Raises:
        ValueError: if folder holds no detector, or its files do not fit each other.
    """
    folder = Path(folder)
    try:
        settings = read_json(folder / "config.json", "a detector's config.json")
        config = DetectorConfig(**settings)
        with torch.device("meta"):  # whatever widths are claimed, no memory is taken for them
            own = Detector(config).state_dict()
        weights = read_tensors(folder / "model.safetensors")
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{folder} holds no detector ({error}); give a folder with config.json and "
            "model.safetensors, as train_detector writes it"
        ) from error
    expected = {k: v.shape for k, v in own.items() if not k.endswith("num_batches_tracked")}
    if expected != {name: value.shape for name, value in weights.items()}:
        raise ValueError(f"config.json and model.safetensors in {folder} do not fit each other")
    detector = Detector(config)
    detector.load_state_dict(weights, strict=False)
    return detector.to(device).to(memory_format=torch.channels_last).eval()  # type: ignore
