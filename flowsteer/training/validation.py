"""Is the student getting closer? Measured on a few fixed noises while it trains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from flowsteer.flow import TimeWindows, VelocityField, guided, rectified_grid, rollout
from flowsteer.measure.distances import relative_l2

TEACHER_STEPS = 28


@dataclass(eq=False)
class DistanceToTeacher:
    """The student's pictures beside the teacher's 28 guided steps from the same noises.

    Args:
        student: the field in training.
        teacher: the unguided field that teaches.
        empty: the empty prompt's condition.
        guidance_scale: of the teacher.
        windows: the student takes one step in each.
        shift: of the teacher's grid.
        eps: the noises (n, c, h, w).
        cond: of the n prompts.
        decode: latents -> pictures (n, 3, h, w) in [-1, 1]; None draws none.
    """

    student: VelocityField
    teacher: VelocityField
    empty: Any
    guidance_scale: float
    windows: TimeWindows
    shift: float
    eps: Tensor
    cond: Any
    decode: Callable[[Tensor], Tensor] | None = None
    _reference: Tensor | None = None

    @torch.no_grad()
    def __call__(self) -> tuple[dict[str, float], Tensor | None]:
        """The mean relative L2 of final latents, and a picture: teacher above, student below."""
        if self._reference is None:
            field = guided(self.teacher, self.guidance_scale, self.empty)
            grid = rectified_grid(TEACHER_STEPS, self.shift)
            self._reference = rollout(field, self.eps, grid, self.cond).end
        end = rollout(self.student, self.eps, self.windows.edges, self.cond).end
        distance = relative_l2(end, self._reference).mean().item()
        picture = None
        if self.decode is not None:
            rows = torch.stack([self.decode(self._reference), self.decode(end)])
            picture = rearrange(rows, "r n c h w -> c (r h) (n w)").float().cpu() / 2 + 0.5
        return {"distance_to_teacher": distance}, picture
