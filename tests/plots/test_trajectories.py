"""Figures of paths show the data they were given."""

import pytest

from flowsteer.plots import theme
from flowsteer.plots.style import PALETTE
from flowsteer.plots.trajectories import distance_along_figure, plane_figure

PATHS = {"Teacher": [[0.0, 0.0], [1.0, 2.0], [3.0, 1.0]], "Student": [[0.0, 0.0], [3.0, 2.0]]}


@pytest.mark.parametrize("name", ["light", "dark"])
def test_the_plane_shows_every_path_and_rings_the_edges(name):
    with theme(name):
        (axes,) = plane_figure(PATHS, (0.7, 0.2), [[1.0, 2.0]]).axes
    teacher, student, edges = axes.lines
    assert teacher.get_xydata().tolist() == PATHS["Teacher"]
    assert student.get_xydata().tolist() == PATHS["Student"]
    assert edges.get_xydata().tolist() == [[1.0, 2.0]]
    assert teacher.get_color() == PALETTE[0] and student.get_color() == PALETTE[1]
    assert axes.get_xlabel() == "first component (70%)"
    assert axes.get_ylabel() == "second component (20%)"


def test_distances_run_from_noise_to_picture_with_the_edges_marked():
    (axes,) = distance_along_figure({"Student": [(1.0, 0.0), (0.5, 0.1), (0.0, 0.3)]}, [0.5]).axes
    assert axes.xaxis_inverted() and axes.get_ylim()[0] == 0
    edge, curve, _ = axes.lines
    assert list(edge.get_xdata()) == [0.5, 0.5]
    assert curve.get_xydata().tolist() == [[1.0, 0.0], [0.5, 0.1], [0.0, 0.3]]
    assert curve.get_color() == PALETTE[1]
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["Student", "window edges"]
