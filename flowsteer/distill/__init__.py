"""How a student is taught: where windows start, and what is asked of the student there."""

from flowsteer.distill.objectives import window_velocity_loss
from flowsteer.distill.starts import Batch, Segment, Start, authentic_starts, interpolated_starts

__all__ = [
    "Batch",
    "Segment",
    "Start",
    "authentic_starts",
    "interpolated_starts",
    "window_velocity_loss",
]
