"""The mathematics of flow matching: paths, time grids, windows, fields and solvers.

Needs torch alone. t = 1 is noise, t = 0 is data; v = dx/dt = eps - x_0.
"""

from flowsteer.flow.fields import GaussianMixture, GaussianMixtureField, VelocityField, guided
from flowsteer.flow.grids import (
    GRIDS,
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
    CALLS_PER_STEP,
    SOLVERS,
    Solver,
    Step,
    Trajectory,
    euler_step,
    find_solver,
    heun_step,
    iterate,
    iterate_multistep,
    rollout,
)
from flowsteer.flow.windows import TimeWindows

__all__ = [
    "GRIDS",
    "CALLS_PER_STEP",
    "SOLVERS",
    "GaussianMixture",
    "GaussianMixtureField",
    "Solver",
    "Step",
    "TimeWindows",
    "Trajectory",
    "VelocityField",
    "chord_point",
    "eps_from_velocity",
    "euler_step",
    "expand_time",
    "find_solver",
    "format_grid",
    "guided",
    "heun_step",
    "interpolate",
    "iterate",
    "iterate_multistep",
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
