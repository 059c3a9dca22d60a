import numpy as np
import pytest
import torch
from PIL import Image

from flowsteer.measure import Interval
from flowsteer.paths import RecordedPath, plane_of
from flowsteer.plots import (
    leaving_figure,
    log_figure,
    plane_figure,
    rows_figure,
    strips_figure,
)


def test_strips_show_the_pictures_with_their_words():
    red, tensor = Image.new("RGB", (4, 4), "red"), torch.full((3, 4, 4), -1.0)
    figure = strips_figure({"a": [("t = 1", red), ("t = 0.5", tensor)], "b": [("only", red)]})
    assert len(figure.axes) == 4
    first, second, third, empty = figure.axes
    assert (first.get_title(), first.get_ylabel()) == ("t = 1", "a")
    assert first.images[0].get_array()[0, 0].tolist() == [255, 0, 0]
    assert second.images[0].get_array().max() == 0
    assert (third.get_title(), third.get_ylabel(), len(empty.images)) == ("only", "b", 0)
    with pytest.raises(ValueError, match="no pictures"):
        strips_figure({"a": []})


def test_paths_are_drawn_where_the_plane_sees_them():
    states = torch.randn(6, 2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    path = RecordedPath(tuple(np.linspace(1, 0, 6)), states, states[1:], 5)
    plane = plane_of(states[:, 1])
    figure = plane_figure(plane, {"teacher": path, "student": path}, picture=1)
    for axes in figure.axes:
        drawn = axes.get_lines()[0].get_xydata()
        np.testing.assert_allclose(drawn, plane.project(states[:, 1]))
    low, high = figure.axes[1].get_xlim()
    assert low < plane.project(states[-1:, 1])[0, 0] < high


def test_distances_are_means_with_intervals_over_pictures():
    values = torch.tensor([[0.0, 0.0], [0.1, 0.3]])
    (axes,) = leaving_figure({"student": ((1.0, 0.0), values)}).axes
    assert axes.get_lines()[0].get_ydata() == pytest.approx([0, 0.2])
    band = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert band.max() == pytest.approx(0.3)
    (alone,) = leaving_figure({"student": ((1.0, 0.0), values[:, :1])}).axes
    assert not alone.collections  # one picture has no interval


def test_a_log_is_binned_and_may_lack_quantities():
    rows = [{"step": step, "loss": float(step % 2)} for step in range(10)] + [{"step": 10}]
    (axes,) = log_figure(rows, ["loss"], bins=5).axes
    assert axes.get_lines()[0].get_ydata() == pytest.approx([0.5] * 5)
    assert axes.get_lines()[0].get_xdata() == pytest.approx([0.5, 2.5, 4.5, 6.5, 8.5])
    with pytest.raises(ValueError, match="no 'cosine'; it has step, loss"):
        log_figure(rows, ["cosine"])


def test_rows_stand_in_order():
    (axes,) = rows_figure({"a": Interval(1, 0, 3), "b": Interval(2, 1, 3)}, "x", line=1.5).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
    assert axes.get_xlabel() == "x"
