"""The published methods, one frozen preset each.

One more method is one function that yields its segments (in `starts.py`, if they come about in a
way of their own), one preset here, and one test in `tests/distill/test_methods.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from flowsteer.distill.starts import (
    Start,
    authentic_starts,
    interpolated_starts,
    pair_starts,
)


@dataclass(frozen=True)
class Method:
    """What sets one method apart from the others."""

    start: Start
    """Where windows start."""
    source: str
    """Where it was published."""
    needs_data: bool = False
    """Whether its starts are made from real pictures."""
    adversarial: bool = False
    """Whether a critic's judgement and feature matching join the loss."""
    num_windows: int | None = None
    """K, where the method fixes it; None leaves it free."""


METHODS = {
    "reflow": Method(
        pair_starts,
        source="Liu et al., Flow Straight and Fast (arXiv 2209.03003), algorithm 1",
        num_windows=1,
    ),
    "perflow": Method(
        interpolated_starts,
        source="Yan et al., PeRFlow (arXiv 2405.07510), algorithm 1",
        needs_data=True,
    ),
    "ota": Method(
        authentic_starts,
        source="Ke et al., FlowSteer (arXiv 2511.18834), Online Trajectory Alignment",
    ),
    "flowsteer": Method(
        authentic_starts,
        source="Ke et al., FlowSteer (arXiv 2511.18834)",
        adversarial=True,
    ),
}


def find_method(name: str) -> Method:
    """The preset of a method's name.

    Raises:
        ValueError: if there is no such method.
    """
    if name not in METHODS:
        raise ValueError(f"method = {name!r} is unknown; use one of {', '.join(METHODS)}")
    return METHODS[name]
