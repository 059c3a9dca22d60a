"""Figures: pure functions, data in, matplotlib `Figure` out, all in one house style."""

from flowsteer.plots.animation import save_particles, save_pictures
from flowsteer.plots.grids import (
    call_error_figure,
    grid_distance_figure,
    picture_table_figure,
    staircase_figure,
)
from flowsteer.plots.paths import bend_figure, order_figure, particles_figure, path_figure
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
from flowsteer.plots.teaching import arrivals_figure, distance_figure

__all__ = [
    "PALETTE",
    "Point",
    "ablation_figure",
    "arrivals_figure",
    "bend_figure",
    "call_error_figure",
    "curves_figure",
    "distance_figure",
    "grid_distance_figure",
    "mismatch_figure",
    "order_figure",
    "particles_figure",
    "path_figure",
    "picture_table_figure",
    "save_figure",
    "save_particles",
    "save_pictures",
    "scheduler_figure",
    "solver_figure",
    "staircase_figure",
    "theme",
    "time_figure",
]
