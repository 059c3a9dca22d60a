"""Animations as GIF files: particles on their way to the data, and pictures as they form."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.animation import PillowWriter
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from flowsteer.plots.paths import dots, frame_plane, shade_plane
from flowsteer.plots.style import new_panels, themed
from flowsteer.toy import FieldView

HOLD = 8
"""Frames for which the end stands still before the animation begins anew."""
_DPI = 72


def save_particles(
    path: Path, views: Sequence[FieldView], particles: Sequence[Tensor], fps: int = 10
) -> Path:
    """Write a GIF of particles on the changing density.

    Args:
        path: ends in .gif.
        views: the field at each time, noise first.
        particles: (b, 2) at each time.
        fps: frames a second.

    Returns:
        The path.

    Raises:
        ValueError: if there is no frame, not one cloud a view, or the path is no GIF.
    """
    return _save(path, _particles, {"views": views, "clouds": particles}, fps)


def save_pictures(
    path: Path, pictures: Sequence[Image.Image], titles: Sequence[str], fps: int = 4
) -> Path:
    """Write a GIF of a picture that forms, such as x0_hat at every step.

    Args:
        path: ends in .gif.
        pictures: one a frame, of one size.
        titles: one a frame.
        fps: frames a second.

    Returns:
        The path.

    Raises:
        ValueError: if there is no frame, not one title a picture, or the path is no GIF.
    """
    return _save(path, _picture, {"pictures": pictures, "titles": titles}, fps)


@themed
def _particles(view: FieldView, points: Tensor) -> Figure:
    figure, (axes,) = new_panels(1, height=3.9, width=3.7)
    shade_plane(axes, view, arrows=False)  # a file a third as large
    dots(axes, points, s=7, color="C1", zorder=3, linewidths=0)
    axes.set_title(f"t = {view.t:.2f}")
    frame_plane(axes)
    return figure


@themed
def _picture(picture: Image.Image, title: str) -> Figure:
    figure, (axes,) = new_panels(1, height=3.4, width=3.2)
    axes.imshow(picture)
    axes.set(title=title, xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    return figure


def _save(
    path: Path, draw: Callable[..., Figure], shown: Mapping[str, Sequence[Any]], fps: int
) -> Path:
    """One fresh figure a frame, since the house style holds while a figure is made.

    Args:
        path: of the file.
        draw: takes one of each of `shown`.
        shown: what they are called -> one a frame.
        fps: frames a second.
    """
    counts = {name: len(values) for name, values in shown.items()}
    count = min(counts.values())
    if count != max(counts.values()):
        told = " and ".join(f"{number} {name}" for name, number in counts.items())
        raise ValueError(f"{told}: give one for each")
    if count < 1:
        raise ValueError("an animation needs at least one frame")
    if path.suffix != ".gif":
        raise ValueError(f"path = {str(path)!r} must end in .gif")
    frames = [*range(count), *[count - 1] * HOLD]
    writer = PillowWriter(fps=fps)
    stills = list(zip(*shown.values(), strict=True))
    figure = draw(*stills[0])
    writer.setup(figure, str(path), dpi=_DPI)
    for last, frame in zip([0, *frames], frames, strict=False):
        if frame != last:
            writer.fig = figure = draw(*stills[frame])
        writer.grab_frame()
    writer.finish()
    return path
