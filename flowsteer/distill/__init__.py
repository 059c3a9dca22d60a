"""How a student is taught: where windows start, and what is asked of the student there."""

from flowsteer.distill.methods import METHODS, Method, find_method
from flowsteer.distill.objectives import window_velocity_loss
from flowsteer.distill.starts import (
    Batch,
    Segment,
    Solve,
    Start,
    authentic_starts,
    interpolated_starts,
    on_policy_starts,
    pair_starts,
)

__all__ = [
    "METHODS",
    "Batch",
    "Method",
    "Segment",
    "Solve",
    "Start",
    "authentic_starts",
    "find_method",
    "interpolated_starts",
    "on_policy_starts",
    "pair_starts",
    "window_velocity_loss",
]
