"""The published methods, one frozen preset each."""

from __future__ import annotations

from dataclasses import dataclass

from flowsteer.distill.starts import Start, authentic_starts


@dataclass(frozen=True)
class Method:
    """What sets one method apart from the others."""

    start: Start
    """Where windows start."""
    needs_data: bool
    """Whether its starts are made from real pictures."""
    source: str
    """Where it was published."""


METHODS = {
    "ota": Method(
        authentic_starts,
        needs_data=False,
        source="Ke et al., FlowSteer (arXiv 2511.18834), Online Trajectory Alignment",
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
