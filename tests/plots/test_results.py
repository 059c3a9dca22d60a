"""Figures hold the numbers that they were given, and nothing is drawn twice alike but differs."""

import io
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from flowsteer import plots
from flowsteer.measure import Interval


def around(mean, below=0.02, above=0.03):
    return Interval(mean, mean - below, mean + above)


def drawn(axes):
    """Label -> (n, 2) points of each line with a label."""
    lines = {}
    for container in axes.containers:
        lines[container.get_label()] = container.lines[0].get_xydata()
    for line in axes.get_lines():
        if not line.get_label().startswith("_"):
            lines[line.get_label()] = line.get_xydata()
    return lines


def bars(axes, index=0):
    """Ends of an error bar's segments, (n, 2, 2)."""
    return np.array([path.vertices for path in axes.containers[index].lines[2][0].get_paths()])


def draw_scheduler():
    points = [(2, around(0.3)), (4, around(0.6)), (28, around(0.9))]
    return plots.scheduler_figure(
        {"teacher": {"stock": points[:2], "rectified": points}, "student": {"stock": points}}
    )


@pytest.fixture
def scheduler():
    return draw_scheduler()


def test_scheduler_has_a_panel_a_network_and_a_line_a_grid(scheduler):
    first, second = scheduler.axes
    assert (first.get_title(), second.get_title()) == ("teacher", "student")
    assert drawn(first)["rectified"].tolist() == [[2, 0.3], [4, 0.6], [28, 0.9]]
    assert drawn(first)["stock"].tolist() == [[2, 0.3], [4, 0.6]]
    assert [label.get_text() for label in first.get_xticklabels()] == ["2", "4", "28"]
    assert bars(second)[0] == pytest.approx(np.array([[2, 0.28], [2, 0.33]]))


def test_mismatch_runs_from_noise_to_data():
    figure = plots.mismatch_figure(
        [0.9, 0.75, 0.5],
        around(0.8),
        [around(value) for value in (0.7, 0.6, 0.5)],
        {"authentic": [0.1, 0.1, 0.1], "interpolated": [0.2, 0.3, 0.4]},
    )
    left, right = figure.axes
    assert left.get_xlim()[0] > left.get_xlim()[1] and right.get_xlim()[0] > right.get_xlim()[1]
    assert drawn(left)["interpolated"].tolist() == [[0.9, 0.7], [0.75, 0.6], [0.5, 0.5]]
    assert set(drawn(left)["authentic"][:, 1]) == {0.8}
    assert drawn(right)["interpolated"][:, 1].tolist() == [0.2, 0.3, 0.4]


def test_ablation_has_its_first_row_on_top_and_what_it_is_held_against():
    rows = {"worst": (around(0.5), around(0.6)), "best": (around(0.8), around(0.3))}
    figure = plots.ablation_figure(rows, {"teacher": 0.9})
    left, right = figure.axes
    places = dict(zip(["worst", "best"], left.get_yticks(), strict=True))
    assert [label.get_text() for label in left.get_yticklabels()] == ["worst", "best"]
    assert places["worst"] > places["best"]
    means = [container.lines[0].get_xydata()[0].tolist() for container in right.containers]
    assert means == [[0.6, places["worst"]], [0.3, places["best"]]]
    assert drawn(left)["teacher"][:, 0].tolist() == [0.9, 0.9]
    assert bars(left, 1)[0][:, 0] == pytest.approx([0.78, 0.83])


def test_time_shows_both_measures_over_the_same_seconds():
    points = [(40.0, around(0.5), around(0.6)), (80.0, around(0.7), around(0.4))]
    left, right = plots.time_figure({"row": points}).axes
    assert drawn(left)["row"].tolist() == [[40, 0.5], [80, 0.7]]
    assert drawn(right)["row"].tolist() == [[40, 0.6], [80, 0.4]]


def test_curves_leave_out_what_a_run_lacks_and_scale_as_the_loss_allows():
    plain = {"step": [1, 2], "loss": [0.4, 0.2]}
    critic = {"step": [1, 2], "loss": [0.3, -0.1], "critic_accuracy": [0.5, 0.7]}
    loss, accuracy = plots.curves_figure(
        {"plain": plain, "critic": critic}, ["loss", "critic_accuracy"]
    ).axes
    assert set(drawn(loss)) == {"plain", "critic"} and set(drawn(accuracy)) == {"critic"}
    assert drawn(accuracy)["critic"].tolist() == [[1, 0.5], [2, 0.7]]
    # a run keeps its colour in every panel
    colors = [line.get_color() for line in loss.get_lines()]
    assert accuracy.get_lines()[0].get_color() == colors[1] != colors[0]
    assert loss.get_yscale() == "linear"
    assert plots.curves_figure({"plain": plain}, ["loss"]).axes[0].get_yscale() == "log"


def test_solver_lines_are_on_logarithmic_axes():
    (axes,) = plots.solver_figure({"euler": [(4, 0.1), (8, 0.05)], "heun": [(8, 0.01)]}).axes
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert drawn(axes)["euler"].tolist() == [[4, 0.1], [8, 0.05]]


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_the_same_data_give_the_same_bytes(tmp_path, suffix):
    (tmp_path / "again").mkdir()
    first = plots.save_figure(draw_scheduler(), tmp_path / f"plot.{suffix}")
    second = plots.save_figure(draw_scheduler(), tmp_path / "again" / f"plot.{suffix}")
    assert first.read_bytes() == second.read_bytes() and first.stat().st_size > 1000


def test_text_in_an_svg_is_text(scheduler, tmp_path):
    file = plots.save_figure(scheduler, tmp_path / "plot.svg")
    texts = {element.text for element in ElementTree.parse(file).iter() if element.text}
    assert {"teacher", "student", "steps", "EmojiEval"} <= texts


def test_an_interval_whose_end_rounding_moved_past_its_mean_is_drawn():
    figure = plots.time_figure({"row": [(1.0, Interval(0.5, 0.5 + 1e-9, 0.6), around(0.1))]})
    assert bars(figure.axes[0])[0][0, 1] == pytest.approx(0.5)


def test_a_notebook_shows_a_figure_at_its_size_in_inches():
    figure = draw_scheduler()
    png, size = figure._repr_png_()
    assert png[1:4] == b"PNG" and size == {"width": 806, "height": 307}
    assert int.from_bytes(png[16:20]) > size["width"]  # more pixels than that, for dense screens


def test_colours_are_the_houses_when_a_figure_is_drawn_later():
    """A line keeps "C0", which matplotlib looks up when it draws."""
    figure = plots.solver_figure({"euler": [(4, 0.1), (8, 0.05)]})
    figure.axes[0].get_lines()[0].set_linewidth(20)
    pixels = np.asarray(Image.open(io.BytesIO(figure._repr_png_()[0])).convert("RGB"))
    colour = np.array(to_rgb(plots.PALETTE[0])) * 255
    assert (np.abs(pixels - colour).max(axis=-1) < 2).mean() > 0.01
