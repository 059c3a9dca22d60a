"""Picture sheets: what teacher and students draw from the same noises."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from flowsteer.reproduce.ablation import runs_of
from flowsteer.reproduce.cells import ablation_name
from flowsteer.reproduce.store import Store
from flowsteer.reproduce.tables import Records

_LABELS = 176  # pixels, left of the pictures


def write_sheet(store: Store, records: Records, path: Path) -> Path | None:
    """The teacher's pictures above those of every row's first seed.

    Returns:
        The file, a PNG, as it was if the strips are gone; None if there are no pictures.
    """
    rows = [("teacher, 28 steps", "0-variants")]
    for run in runs_of(records):
        rows.append((f"{run.label}, seed {run.seeds[0]}", ablation_name(run.row, run.seeds[0])))
    strips: list[tuple[str, Image.Image]] = []
    for label, name in rows:
        if name in records and store.picture(name).is_file():
            with Image.open(store.picture(name)) as strip:
                strips.append((label, strip.convert("RGB")))
    if strips:
        path.parent.mkdir(parents=True, exist_ok=True)
        labelled(strips).save(path, optimize=True)
    return path if path.is_file() else None


def labelled(strips: list[tuple[str, Image.Image]]) -> Image.Image:
    """Strips of one height below each other, each with its label at the left."""
    width, height = max(strip.width for _, strip in strips), strips[0][1].height
    sheet = Image.new("RGB", (_LABELS + width, height * len(strips)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for row, (label, strip) in enumerate(strips):
        draw.text((6, row * height + height // 2 - 8), label, "black", font)
        sheet.paste(strip, (_LABELS, row * height))
    return sheet
