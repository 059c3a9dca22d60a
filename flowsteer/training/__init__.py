"""One training loop for every recipe: a generator over accelerate, with checkpoints of our own."""

from flowsteer.training.checkpoints import latest_checkpoint, load_checkpoint, save_checkpoint
from flowsteer.training.config import TrainingConfig
from flowsteer.training.loop import StepReport, TrainingDiverged, train

__all__ = [
    "StepReport",
    "TrainingConfig",
    "TrainingDiverged",
    "latest_checkpoint",
    "load_checkpoint",
    "save_checkpoint",
    "train",
]
