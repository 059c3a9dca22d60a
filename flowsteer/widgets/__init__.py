"""Explorers for notebooks: sliders over a figure, each usable in one line."""

from flowsteer.widgets.base import Explorer
from flowsteer.widgets.path import PathExplorer
from flowsteer.widgets.schedule import ScheduleExplorer

__all__ = ["Explorer", "PathExplorer", "ScheduleExplorer"]
