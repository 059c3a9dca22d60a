"""The rectified scheduler in pipelines of every family: what they ask, draw, save and reload."""

import diffusers
import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from tiny_pipelines import PIPELINES, parts_of
from torch.testing import assert_close

import flowsteer
from flowsteer import RectifiedFlowMatchEulerDiscreteScheduler as Rectified
from flowsteer.schedule_families import FAMILIES

every_pipeline = pytest.mark.parametrize("name", PIPELINES)


def stock_with_sigmas(**config):
    """Stock, given the recipe without code wherever a pipeline leaves the grid to it."""
    scheduler = FlowMatchEulerDiscreteScheduler(**config)
    choose = scheduler.set_timesteps

    def set_timesteps(num_inference_steps=None, device=None, sigmas=None, mu=None, timesteps=None):
        if sigmas is None and timesteps is None:
            sigmas = np.linspace(1, 1 / num_inference_steps, num_inference_steps)
            num_inference_steps = None
        choose(num_inference_steps, device, sigmas, mu, timesteps)

    scheduler.set_timesteps = set_timesteps  # not a class of its own: Bria asks for the very type
    return scheduler


def draw(pipe, name, steps):
    latents = pipe(
        **PIPELINES[name].call(), num_inference_steps=steps, output_type="latent",
        generator=torch.Generator().manual_seed(0),
    )[0]  # fmt: skip
    assert torch.isfinite(latents).all()
    return latents


def check_same_as_stock(name, steps):
    tiny = PIPELINES[name]
    ours = draw(tiny.build(name, Rectified(**tiny.config)), name, steps)
    stock = draw(tiny.build(name, stock_with_sigmas(**tiny.config)), name, steps)
    assert torch.equal(ours, stock)
    return ours


@every_pipeline
@pytest.mark.parametrize("steps", [1, 2, 4])
def test_the_same_times_make_the_same_latents(name, steps):
    if steps == 1 and "shift_terminal" in PIPELINES[name].config:
        pytest.skip("stock divides 0 by 0 at one step with `shift_terminal`")
    if steps == 1 and name == "MochiPipeline":
        pytest.skip("its pipeline divides by N // 2 before it asks a scheduler")
    check_same_as_stock(name, steps)


@pytest.mark.soak
@every_pipeline
def test_the_same_times_make_the_same_latents_in_many_steps(name):
    check_same_as_stock(name, 28)


@pytest.mark.parametrize("name", ["QwenImagePipeline", "LTXPipeline"])
def test_one_step_works_where_stock_divides_by_zero(name):
    tiny = PIPELINES[name]
    draw(tiny.build(name, Rectified(**tiny.config)), name, 1)


@every_pipeline
def test_saved_and_reloaded_they_draw_the_same(name, tmp_path):
    tiny = PIPELINES[name]
    pipe = tiny.build(name, Rectified(**tiny.config))
    before = draw(pipe, name, 2)
    pipe.save_pretrained(tmp_path)
    kind = getattr(diffusers, name)
    missing = [part for part in parts_of(kind) if getattr(pipe, part, None) is None]
    again = kind.from_pretrained(tmp_path, **dict.fromkeys(missing))
    again.set_progress_bar_config(disable=True)
    assert type(again.scheduler) is flowsteer.RectifiedFlowMatchEulerDiscreteScheduler
    # weights that are read from a file lie otherwise in memory, and round otherwise
    assert_close(draw(again, name, 2), before, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("family", "name"),
    [(family, name) for family in FAMILIES for name in family.pipelines],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_pipeline_asks_what_the_table_of_families_says(family, name):
    asked = []

    class Listening(Rectified):
        def set_timesteps(
            self, num_inference_steps=None, device=None, sigmas=None, mu=None, timesteps=None
        ):
            asked.append(
                {"num_inference_steps": num_inference_steps, "sigmas": sigmas,
                 "timesteps": timesteps}
            )  # fmt: skip
            super().set_timesteps(num_inference_steps, device, sigmas, mu, timesteps)

    scheduler = Listening(**family.config)
    draw(PIPELINES[name].build(name, scheduler), name, 4)
    passed = {key: value for key, value in asked[0].items() if value is not None}
    expected = family.asks(4)
    assert len(asked) == 1 and passed.keys() == expected.keys()
    for key, value in expected.items():
        assert np.allclose(passed[key], value, atol=1e-7), key
