"""What is asked of the student inside a window."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from flowsteer.distill.starts import Segment
from flowsteer.flow import VelocityField


def window_velocities(
    student: VelocityField, segment: Segment, depths: Tensor, cond: Any = None
) -> tuple[Tensor, Tensor]:
    """The student's velocity on the chord x_t = x_hi + (t - t_hi) v*, and its target v*.

    Args:
        student: the field that is taught.
        segment: the teacher's passage; no gradient flows into it.
        depths: (b,) in [0, 1): t = t_hi - depth (t_hi - t_lo).
        cond: what the student is told.

    Returns:
        Both (b, *d), float32.
    """
    t = segment.t_hi - depths * (segment.t_hi - segment.t_lo)
    v = student(segment.chord(t), t, cond)
    return v.float(), segment.mean_velocity.float()


def window_velocity_loss(
    student: VelocityField, segment: Segment, depths: Tensor, cond: Any = None
) -> Tensor:
    """mean((v_student(x_t, t) - v*)^2), of `window_velocities`.

    FlowSteer, equation of L_dist (as PeRFlow's): zero if and only if the student moves along the
    straight line from the window's start to where the teacher ends.

    Returns:
        The mean squared error, a scalar.
    """
    return F.mse_loss(*window_velocities(student, segment, depths, cond))
