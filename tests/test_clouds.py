import pytest
import torch

from flowsteer.clouds import clouds_of, mixture_clouds
from flowsteer.flow import interpolate, rectified_grid
from flowsteer.paths import plane_of


def test_without_guidance_the_clouds_are_one():
    clouds = mixture_clouds(1.0, count=300, steps=24, shuffles=99)
    distances = torch.tensor([test.distance for test in clouds.tests])
    assert distances.abs().max() < 0.02
    assert clouds.times == tuple(rectified_grid(24, 3.0).tolist())
    assert clouds.authentic.shape == clouds.interpolated.shape == (25, 300, 2)


def test_guidance_parts_them_and_more_of_it_further():
    at_half = []
    for scale in (2.0, 4.0):
        clouds = mixture_clouds(scale, count=200, steps=24, shuffles=99)
        edges = [clouds.tests[i] for i in clouds.edges(4)]
        assert all(test.differs for test in edges[1:])
        assert edges[0].distance < edges[1].distance < edges[2].distance
        at_half.append(edges[2].distance)
    assert at_half[0] < at_half[1]


def test_a_straight_path_with_its_own_pictures_has_no_mismatch():
    generator = torch.Generator().manual_seed(0)
    eps, other = torch.randn(2, 400, 3, generator=generator)
    ends = lambda noise: 2 * noise + 1  # noqa: E731  a map along straight lines
    times = rectified_grid(4, 3.0)
    states = torch.stack([interpolate(ends(eps), eps, t) for t in times.tolist()])
    plane = plane_of(states[-1])
    own = clouds_of(times, states, ends(other), other, plane)
    assert not own.tests[2].differs
    strangers = clouds_of(times, states, ends(other.flip(0)), other, plane)
    assert strangers.tests[2].differs  # straight alone is not enough
    assert own.authentic.shape == (5, 400, 2)
    assert "%" in own.labels[0]


def test_edges_are_times_and_other_windows_are_refused():
    clouds = mixture_clouds(1.0, count=10, steps=12, shuffles=1)
    assert clouds.windows() == (2, 3, 4, 6, 12)
    assert [round(clouds.times[i], 4) for i in clouds.edges(4)] == [0.9, 0.75, 0.5]
    with pytest.raises(ValueError, match="num_windows = 5"):
        clouds.edges(5)


def test_noise_must_be_fresh_and_shapes_must_agree():
    states, noise = torch.randn(3, 4, 2), torch.randn(4, 2)
    with pytest.raises(ValueError, match="begins one of the teacher's paths"):
        clouds_of((1.0, 0.5, 0.0), states, torch.zeros(4, 2), states[0])
    with pytest.raises(ValueError, match="shapes"):
        clouds_of((1.0, 0.0), states, torch.zeros(4, 2), noise)
