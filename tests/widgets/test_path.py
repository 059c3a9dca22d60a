"""PathExplorer by its traits: the figure shows what they say."""

import numpy as np
import pytest
import torch
import traitlets

from flowsteer.flow import rectified_grid, rollout
from flowsteer.toy import ring
from flowsteer.widgets import PathExplorer


def offsets(explorer, label):
    (dots,) = (c for c in explorer.figure.axes[1].collections if c.get_label() == label)
    return np.asarray(dots.get_offsets())


def noise(count, seed=0):
    return torch.randn(count, 2, generator=torch.Generator().manual_seed(seed))


def test_reached_ends_are_those_of_the_solver():
    explorer = PathExplorer(num_steps=3, num_particles=20)
    end = rollout(ring().velocity, noise(20), rectified_grid(3)).end
    assert offsets(explorer, "reached ends") == pytest.approx(end.numpy(), abs=1e-5)
    assert len(offsets(explorer, "steps")) == 4 * 20


def test_more_steps_come_nearer_to_the_exact_ends_and_the_caption_says_so():
    explorer = PathExplorer(num_steps=2)
    missed = []
    for num_steps in (2, 8, 32):
        explorer.num_steps = num_steps
        gap = offsets(explorer, "reached ends") - offsets(explorer, "exact ends")
        missed.append(np.linalg.norm(gap, axis=1).mean())
        assert f"by {missed[-1]:.3f}" in explorer.text.value
    assert missed[0] > 2 * missed[1] > 4 * missed[2]
    explorer.solver = "heun"
    assert explorer.figure.axes[1].get_title().startswith("32 steps of heun")
    assert "64 calls" in explorer.text.value


def test_time_moves_the_particles_of_the_left_panel():
    explorer = PathExplorer(t=1.0, num_particles=20)

    def here():
        return np.asarray(explorer.figure.axes[0].collections[-1].get_offsets())

    assert here() == pytest.approx(noise(20).numpy(), abs=1e-6)
    explorer.t = 0.0
    assert here() == pytest.approx(offsets(explorer, "exact ends"), abs=1e-5)
    assert "t = 0.00" in explorer.figure.axes[0].get_title()


def test_guidance_overshoots_the_component_of_the_prompt():
    explorer = PathExplorer(component=0)
    plain = offsets(explorer, "exact ends")[:, 0].mean()
    explorer.guidance_scale = 6.0
    assert plain == pytest.approx(2, abs=0.2)
    assert offsets(explorer, "exact ends")[:, 0].mean() > plain + 0.5


def test_another_mixture_has_its_own_menu():
    explorer = PathExplorer(mixture=ring(count=3))
    assert [value for _, value in explorer.controls["component"].options] == [-1, 0, 1, 2]
    with pytest.raises(traitlets.TraitError, match="component = 3 must be below 3"):
        explorer.component = 3


def test_every_control_is_described():
    for control in PathExplorer().controls.values():
        assert control.description
