"""Explorers for notebooks: sliders over a figure, each usable in one line."""

from flowsteer.widgets.base import Explorer
from flowsteer.widgets.mismatch import MismatchExplorer
from flowsteer.widgets.path import PathExplorer
from flowsteer.widgets.schedule import ScheduleExplorer
from flowsteer.widgets.student import StudentExplorer

__all__ = [
    "Explorer",
    "MismatchExplorer",
    "PathExplorer",
    "ScheduleExplorer",
    "StudentExplorer",
]
