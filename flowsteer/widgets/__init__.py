"""Explorers for notebooks: sliders over a figure, each usable in one line."""

from flowsteer.widgets.base import Explorer

__all__ = ["Explorer"]
