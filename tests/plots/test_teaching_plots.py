"""Figures of paths, grids and students hold the numbers that they were given."""

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from PIL import Image

from flowsteer import plots
from flowsteer.flow import Trajectory, rectified_grid, stock_grid
from flowsteer.measure import Interval
from flowsteer.toy import look_at, ring


def around(mean):
    return Interval(mean, 0.9 * mean, 1.1 * mean)


def offsets(collection):
    return np.asarray(collection.get_offsets())


def test_the_view_of_a_field_has_x_along_rows_and_its_peak_at_a_blob():
    view = look_at(ring(), 0.0, component=0, count=41)
    row, column = np.unravel_index(int(view.density.argmax()), tuple(view.density.shape))
    assert view.points[row, column].tolist() == pytest.approx([2.0, 0.0], abs=0.01)
    assert view.points[0, :, 1].unique().numel() == 1  # one row, one y
    exact = ring().velocity(view.points[3, 5][None], torch.zeros(1), torch.zeros(1, dtype=int))
    assert view.velocity[3, 5].tolist() == pytest.approx(exact[0].tolist(), abs=1e-4)


def test_particles_stand_where_they_were_put():
    clouds = [torch.tensor([[0.5, 1.0]]), torch.tensor([[-1.0, 2.0]])]
    figure = plots.particles_figure([look_at(ring(), t) for t in (0.8, 0.2)], clouds)
    assert [axes.get_title() for axes in figure.axes] == ["t = 0.80", "t = 0.20"]
    for axes, cloud in zip(figure.axes, clouds, strict=True):
        assert offsets(axes.collections[-1]) == pytest.approx(cloud.numpy())


def test_particles_between_two_steps_stand_on_their_line():
    states = torch.tensor([[[0.0, 0.0]], [[1.0, 2.0]]])
    path = Trajectory(states, torch.tensor([1.0, 0.0], dtype=torch.float64))
    left, right = plots.path_figure(look_at(ring(), 0.75), path, path, "title").axes
    assert offsets(left.collections[-1]) == pytest.approx(np.array([[0.25, 0.5]]))
    assert right.get_title() == "title"


def test_order_is_measured_from_what_is_drawn():
    points = [(n, 1 / n**2) for n in (4, 8, 16)]
    (axes,) = plots.order_figure({"heun": points}).axes
    assert axes.get_lines()[0].get_label() == "heun: order 2.00"
    assert axes.get_lines()[0].get_xydata().tolist() == [list(point) for point in points]


def test_a_field_keeps_its_colour_from_paths_to_curvature():
    states = torch.randn(5, 3, 2)
    curves = {"straight": ([0.8, 0.2], [0.1, 0.1]), "bent": ([0.8, 0.2], [3.0, 1.0])}
    *_, bent, right = plots.bend_figure({"straight": states, "bent": states}, curves).axes
    assert [line.get_label() for line in right.get_lines()] == ["straight", "bent"]
    assert bent.get_lines()[0].get_color() == right.get_lines()[1].get_color() == "C1"
    assert right.get_xlim() == (1, 0)  # sampling runs from noise to data


def test_a_staircase_names_the_share_of_its_last_call():
    grids = {"stock": stock_grid(4, 3.0), "rectified": rectified_grid(4, 3.0)}
    stairs, shares = plots.staircase_figure(grids).axes
    assert [text.get_text() for text in shares.texts] == ["0.9%", "50.0%"]
    assert stairs.get_lines()[0].get_ydata() == pytest.approx(grids["stock"].numpy())


def test_gaps_are_drawn_with_zero_between_them():
    gaps = [(2, Interval(-0.1, -0.2, 0.0)), (4, around(0.1))]
    left, right = plots.grid_distance_figure(
        {"stock": [(2, around(0.5)), (4, around(0.4))], "rectified": [(2, around(0.6))]}, gaps
    ).axes
    assert [c.get_label() for c in left.containers] == ["stock", "rectified"]
    assert right.containers[0].lines[0].get_ydata().tolist() == [-0.1, 0.1]
    assert any(set(line.get_ydata()) == {0} for line in right.get_lines())


def test_errors_of_calls_stand_side_by_side():
    (axes,) = plots.call_error_figure({"stock": [around(0.1)] * 4, "b": [around(0.2)] * 4}).axes
    first, second = (container.lines[0].get_xdata() for container in axes.containers)
    assert (second > first).all() and [round(x) for x in first] == [1, 2, 3, 4]


def test_pictures_are_in_their_rows():
    red, blue = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    figure = plots.picture_table_figure({"a": [red, red], "b": [blue, red]}, ["2", "4"])
    shown = [axes.images[0].get_array()[0, 0].tolist() for axes in figure.axes]
    assert shown == [[255, 0, 0], [255, 0, 0], [0, 0, 255], [255, 0, 0]]
    assert [axes.get_ylabel() for axes in figure.axes] == ["a", "", "b", ""]


def test_arrivals_are_joined_to_their_ends():
    ends, points = torch.zeros(3, 2), torch.arange(6.0).reshape(3, 2) / 3
    (axes,) = plots.arrivals_figure({"ota": points}, ends).axes
    assert [line.get_xydata()[1].tolist() for line in axes.get_lines()] == points.tolist()
    assert offsets(axes.collections[1]) == pytest.approx(points.numpy())


def test_distances_have_their_first_row_on_top():
    (axes,) = plots.rows_figure({"far": around(0.5), "near": around(0.02)}, "x", log=True).axes
    far, near = (container.lines[0].get_xydata()[0] for container in axes.containers)
    assert (far[0], near[0]) == (0.5, 0.02) and far[1] > near[1]
    assert axes.get_xscale() == "log"


def test_an_animation_ends_with_its_last_frame(tmp_path):
    red, blue = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    path = plots.save_pictures(tmp_path / "forming.gif", [red, blue], ["t = 1", "t = 0"])
    with Image.open(path) as gif:
        middle = gif.width // 2, gif.height // 2
        first = gif.convert("RGB").getpixel(middle)
        gif.seek(gif.n_frames - 1)
        last = gif.convert("RGB").getpixel(middle)
    assert first[0] > 200 > 50 > first[2] and last[2] > 200 > 50 > last[0]


def test_particles_move_from_frame_to_frame(tmp_path):
    views = [look_at(ring(), t) for t in (1.0, 0.5, 0.0)]
    clouds = [torch.full((400, 2), float(place)) for place in (-2, 0, 2)]
    path = plots.save_particles(tmp_path / "particles.gif", views, clouds)
    orange, places = np.array(to_rgb(plots.PALETTE[1])) * 255, []
    with Image.open(path) as gif:
        for frame in range(3):
            gif.seek(frame)
            pixels = np.asarray(gif.convert("RGB")).astype(float)
            places.append(np.argwhere(np.abs(pixels - orange).max(-1) < 30).mean(0))
    assert places[0][1] < places[1][1] < places[2][1]  # to the right
    assert places[0][0] > places[1][0] > places[2][0]  # and up


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a.gif", [], []), "at least one frame"),
        (("a.mp4", [Image.new("RGB", (8, 8))], ["t"]), "must end in .gif"),
        (("a.gif", [Image.new("RGB", (8, 8))], []), "1 pictures and 0 titles"),
    ],
)
def test_bad_animations_are_refused(tmp_path, arguments, message):
    name, *rest = arguments
    with pytest.raises(ValueError, match=message):
        plots.save_pictures(tmp_path / name, *rest)
