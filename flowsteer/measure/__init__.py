"""Measures of pictures and latents, and the intervals around them; imports torch alone."""

from flowsteer.measure.bootstrap import (
    Interval,
    crossed_bootstrap,
    crossed_interval,
    mean_interval,
    paired_bootstrap,
    stratified_interval,
    wilson_interval,
)
from flowsteer.measure.distances import relative_l2
from flowsteer.measure.frechet import frechet_distance, frechet_from_moments
from flowsteer.measure.images import psnr
from flowsteer.measure.latents import latent_distance
from flowsteer.measure.paths import acceleration, measured_order, straightness

__all__ = [
    "Interval",
    "acceleration",
    "crossed_bootstrap",
    "crossed_interval",
    "frechet_distance",
    "frechet_from_moments",
    "latent_distance",
    "mean_interval",
    "measured_order",
    "paired_bootstrap",
    "psnr",
    "relative_l2",
    "straightness",
    "stratified_interval",
    "wilson_interval",
]
