"""Any picture file becomes a small square in [-1, 1], and keeps its values and places."""

import numpy as np
import pytest
import torch
from PIL import Image

from flowsteer.training.sources import read_picture


def test_a_ramp_stays_a_ramp(tmp_path):
    """Values and places survive shrinking: pixel centres are where they belong."""
    ramp = np.tile(np.arange(256, dtype=np.uint8), (256, 1))
    Image.fromarray(np.stack([ramp, ramp.T, 255 - ramp], -1)).save(tmp_path / "ramp.png")
    x = read_picture(tmp_path / "ramp.png", 32)
    expected = (torch.arange(32) * 8 + 3.5) / 127.5 - 1
    inside = slice(2, -2)  # the filter is cut off at the border
    for got in (x[0, 5], x[1, :, 5], x[2, 5].flip(0)):
        torch.testing.assert_close(got[inside], expected[inside], rtol=0, atol=0.01)


@pytest.mark.parametrize(
    ("mode", "color", "value"),
    [
        ("RGBA", (10, 200, 30, 0), (255, 255, 255)),
        ("RGBA", (0, 0, 0, 51), (204, 204, 204)),
        ("LA", (100, 255), (100, 100, 100)),
        ("LA", (0, 51), (204, 204, 204)),
        ("L", 100, (100, 100, 100)),
        ("1", 1, (255, 255, 255)),
        ("I;16", 100 * 256, (100, 100, 100)),
    ],
)
def test_every_kind_of_picture_becomes_rgb_over_white(tmp_path, mode, color, value):
    Image.new(mode, (9, 9), color).save(tmp_path / "picture.png")
    x = read_picture(tmp_path / "picture.png", 3)
    expected = torch.tensor(value)[:, None, None].expand(3, 3, 3) / 127.5 - 1
    torch.testing.assert_close(x, expected, rtol=0, atol=1e-6)


def test_large_photographs_lose_nothing_that_is_wanted(tmp_path):
    """JPEG files are decoded at a fraction of their size; the picture must not show it."""
    coarse = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((1024, 1024), Image.Resampling.BICUBIC)
    image.save(tmp_path / "photo.jpg", quality=98, subsampling=0)
    image.save(tmp_path / "photo.png")
    jpeg, png = (read_picture(tmp_path / f"photo.{kind}", 256) for kind in ("jpg", "png"))
    assert (jpeg - png).pow(2).mean().sqrt() < 0.02 * png.std()
