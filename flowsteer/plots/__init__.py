"""Figures: pure functions, data in, matplotlib `Figure` out, all in one house style."""

from flowsteer.plots.animation import save_particles, save_pictures
from flowsteer.plots.grids import (
    call_error_figure,
    grid_distance_figure,
    picture_table_figure,
    staircase_figure,
)
from flowsteer.plots.mismatch import (
    chords_figure,
    clouds_figure,
    distances_figure,
    edges_figure,
    story_figure,
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
from flowsteer.plots.students import (
    leaving_figure,
    log_figure,
    plane_figure,
    rows_figure,
    strips_figure,
)
from flowsteer.plots.style import PALETTE, save_figure, theme
from flowsteer.plots.teaching import arrivals_figure

__all__ = [
    "PALETTE",
    "Point",
    "ablation_figure",
    "arrivals_figure",
    "bend_figure",
    "call_error_figure",
    "chords_figure",
    "clouds_figure",
    "curves_figure",
    "distances_figure",
    "edges_figure",
    "grid_distance_figure",
    "leaving_figure",
    "log_figure",
    "mismatch_figure",
    "order_figure",
    "particles_figure",
    "path_figure",
    "picture_table_figure",
    "plane_figure",
    "rows_figure",
    "save_figure",
    "save_particles",
    "save_pictures",
    "scheduler_figure",
    "solver_figure",
    "staircase_figure",
    "story_figure",
    "strips_figure",
    "theme",
    "time_figure",
]
