import numpy as np
import pytest
import torch

from flowsteer.clouds import mixture_clouds
from flowsteer.plots import (
    chords_figure,
    clouds_figure,
    distances_figure,
    edges_figure,
    story_figure,
)


@pytest.fixture(scope="module")
def clouds():
    return mixture_clouds(3.0, count=30, steps=8, shuffles=9)


def scatters(axes):
    return [np.asarray(c.get_offsets()) for c in axes.collections if len(c.get_offsets()) == 30]


def test_clouds_at_an_edge_and_distances_at_all_times(clouds):
    figure = clouds_figure(clouds, 4, 2)
    left, right = figure.axes
    interpolated, authentic = scatters(left)
    np.testing.assert_allclose(authentic, clouds.authentic[4])
    np.testing.assert_allclose(interpolated, clouds.interpolated[4])
    assert left.get_title() == "t = 0.75"
    line = right.get_lines()[0]
    np.testing.assert_allclose(line.get_ydata(), [test.distance for test in clouds.tests])
    assert right.get_xlim() == (1, 0)
    with pytest.raises(ValueError, match="edge = 4: 4 windows have inner edges 1 to 3"):
        clouds_figure(clouds, 4, 4)


def test_a_panel_an_edge_in_one_frame(clouds):
    figure = edges_figure(clouds, 4)
    assert [axes.get_title() for axes in figure.axes] == ["t = 0.9", "t = 0.75", "t = 0.5"]
    assert len({axes.get_xlim() for axes in figure.axes}) == 1
    for axes, index in zip(figure.axes, (2, 4, 6), strict=True):
        np.testing.assert_allclose(scatters(axes)[1], clouds.authentic[index])


def test_a_line_a_case(clouds):
    cases = {"one": (clouds.times, clouds.tests), "two": (clouds.times, clouds.tests)}
    figure = distances_figure(cases)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels.count("99% of chance") == 1 and {"one", "two"} <= set(labels)


def test_chords_lead_from_the_noise_to_the_picture(clouds):
    x_0 = torch.randn(30, 2)
    (axes,) = chords_figure(clouds.times, clouds.authentic[:, :3], x_0[:3], 4).axes
    dashed = [line.get_xydata() for line in axes.get_lines() if line.get_linestyle() == "--"]
    assert len(dashed) == 3
    np.testing.assert_allclose(dashed[0], torch.stack([clouds.authentic[0, 0], x_0[0]]), rtol=1e-6)
    assert len(story_figure(clouds, x_0, 4, 2).axes) == 3
