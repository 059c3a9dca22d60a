"""Measures of pictures and latents, and the intervals around them; imports torch alone."""

from flowsteer.measure.bootstrap import (
    Interval,
    mean_interval,
    paired_bootstrap,
    stratified_interval,
    wilson_interval,
)
from flowsteer.measure.distances import relative_l2
from flowsteer.measure.frechet import frechet_distance, frechet_from_moments
from flowsteer.measure.images import psnr

__all__ = [
    "Interval",
    "frechet_distance",
    "frechet_from_moments",
    "mean_interval",
    "paired_bootstrap",
    "psnr",
    "relative_l2",
    "stratified_interval",
    "wilson_interval",
]
