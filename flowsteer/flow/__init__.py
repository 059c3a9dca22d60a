"""The mathematics of flow matching: paths, time grids, windows, fields and solvers.

Needs torch alone. t = 1 is noise, t = 0 is data; v = dx/dt = eps - x_0.
"""

from flowsteer.flow.fields import GaussianMixture, GaussianMixtureField, VelocityField, guided
from flowsteer.flow.grids import (
    format_grid,
    rectified_grid,
    refine_grid,
    shift_sigmas,
    stock_grid,
    unshift_sigmas,
)
from flowsteer.flow.path import (
    chord_point,
    eps_from_velocity,
    expand_time,
    interpolate,
    mean_velocity,
    velocity,
    velocity_from_x0,
    x0_from_velocity,
)
from flowsteer.flow.solvers import (
    Step,
    Trajectory,
    euler_step,
    heun_step,
    iterate,
    rollout,
)
from flowsteer.flow.windows import TimeWindows

__all__ = [
    "GaussianMixture",
    "GaussianMixtureField",
    "Step",
    "TimeWindows",
    "Trajectory",
    "VelocityField",
    "chord_point",
    "eps_from_velocity",
    "euler_step",
    "expand_time",
    "format_grid",
    "guided",
    "heun_step",
    "interpolate",
    "iterate",
    "mean_velocity",
    "rectified_grid",
    "refine_grid",
    "rollout",
    "shift_sigmas",
    "stock_grid",
    "unshift_sigmas",
    "velocity",
    "velocity_from_x0",
    "x0_from_velocity",
]
