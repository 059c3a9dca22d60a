"""From a velocity field to data in the plane: time, solver, steps and guidance at hand."""

from __future__ import annotations

from collections.abc import Mapping

import ipywidgets
import torch
import traitlets
from matplotlib.figure import Figure

from flowsteer.flow import (
    CALLS_PER_STEP,
    SOLVERS,
    GaussianMixture,
    Trajectory,
    find_solver,
    guided,
    rectified_grid,
)
from flowsteer.plots.paths import path_figure
from flowsteer.toy import look_at, ring
from flowsteer.widgets.base import Explorer

FINE_STEPS = 60
"""Heun's steps of the paths that are called exact."""


class PathExplorer(Explorer):
    """Particles in the exact field of a Gaussian mixture, beside the paths of a solver.

    `PathExplorer()` is all it takes; every trait below may be given, and set later.
    """

    t = traitlets.Float(0.6, min=0.0, max=1.0, help="time of the left panel")
    solver = traitlets.Enum(tuple(SOLVERS), "euler")
    num_steps = traitlets.Int(4, min=1, max=50)
    component = traitlets.Int(-1, min=-1, help="what the prompt names; -1 means all")
    guidance_scale = traitlets.Float(1.0, min=1.0, max=10.0, help="1 means none")
    shift = traitlets.Float(1.0, min=0.1, max=12.0, help="of the solver's time grid")
    num_particles = traitlets.Int(36, min=1, max=500)
    seed = traitlets.Int(0, min=0)
    mixture = traitlets.Instance(GaussianMixture)

    @traitlets.default("mixture")
    def _ring(self) -> GaussianMixture:
        return ring()

    @traitlets.validate("component")
    def _check_component(self, proposal: traitlets.Bunch) -> int:
        count = len(self.mixture.means)
        if proposal.value >= count:
            raise traitlets.TraitError(f"component = {proposal.value} must be below {count}")
        return proposal.value

    def make_controls(self) -> Mapping[str, ipywidgets.ValueWidget]:
        """Sliders and menus in the order of the story."""
        components = [("all", -1), *((f"blob {k}", k) for k in range(len(self.mixture.means)))]
        return {
            "t": ipywidgets.FloatSlider(min=0, max=1, step=0.02, description="time t"),
            "solver": ipywidgets.Dropdown(options=list(SOLVERS), description="solver"),
            "num_steps": ipywidgets.IntSlider(min=1, max=50, description="steps N"),
            "component": ipywidgets.Dropdown(options=components, description="prompt"),
            "guidance_scale": ipywidgets.FloatSlider(
                min=1, max=10, step=0.5, description="guidance"
            ),
        }

    def draw(self) -> Figure:
        """The field at t, and the paths of the solver over the exact ones."""
        eps = torch.randn(self.num_particles, 2, generator=torch.Generator().manual_seed(self.seed))
        cond = torch.full((len(eps),), self.component)
        field = guided(self.mixture.velocity, self.guidance_scale, torch.tensor([-1]))

        def solve(solver: str, num_steps: int) -> Trajectory:
            grid = rectified_grid(num_steps, self.shift)
            states = list(find_solver(solver)(field, eps, grid, cond))
            return Trajectory(torch.stack(states), grid)

        paths, exact = solve(self.solver, self.num_steps), solve("heun", FINE_STEPS)
        self.mean_error = (paths.end - exact.end).norm(dim=1).mean().item()
        view = look_at(self.mixture, self.t, self.component, self.guidance_scale, count=30)
        steps = "1 step" if self.num_steps == 1 else f"{self.num_steps} steps"
        return path_figure(view, paths, exact, f"{steps} of {self.solver}, and exact paths (grey)")

    def caption(self) -> str:
        """Cost and error."""
        calls = self.num_steps * CALLS_PER_STEP[self.solver]
        return (
            f"{calls} calls of the field; the ends miss the exact ones by"
            f" {self.mean_error:.3f} on average."
        )
