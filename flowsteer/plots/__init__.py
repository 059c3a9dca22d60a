"""Figures: pure functions, data in, matplotlib `Figure` out, all in one house style."""

from flowsteer.plots.results import (
    Point,
    ablation_figure,
    curves_figure,
    mismatch_figure,
    scheduler_figure,
    solver_figure,
    time_figure,
)
from flowsteer.plots.style import PALETTE, save_figure, theme

__all__ = [
    "PALETTE",
    "Point",
    "ablation_figure",
    "curves_figure",
    "mismatch_figure",
    "save_figure",
    "scheduler_figure",
    "solver_figure",
    "theme",
    "time_figure",
]
