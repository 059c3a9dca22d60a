"""The rectified scheduler in real pipelines: its grid, and that all else is stock."""

import inspect
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Img2ImgPipeline,
    StableDiffusion3Pipeline,
)
from torch import Tensor
from torch.testing import assert_close

import flowsteer
from flowsteer import RectifiedFlowMatchEulerDiscreteScheduler as Rectified
from flowsteer.flow import format_grid, guided, interpolate, rectified_grid, rollout, stock_grid

PAPER_GRID = [1.0, 0.9, 0.75, 0.5, 0.0]
NO_ENCODERS = dict.fromkeys(
    f"{part}{n}" for part in ("text_encoder", "tokenizer") for n in ("", "_2", "_3")
)
PROMPT_EMBEDS = {
    key: torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    for seed, (key, shape) in enumerate(
        {
            "prompt_embeds": (1, 6, 32),
            "pooled_prompt_embeds": (1, 16),
            "negative_prompt_embeds": (1, 6, 32),
            "negative_pooled_prompt_embeds": (1, 16),
        }.items()
    )
}


def grid_of(scheduler: FlowMatchEulerDiscreteScheduler, *args, **kwargs) -> Tensor:
    scheduler.set_timesteps(*args, **kwargs)
    return scheduler.sigmas


def assert_grid(actual: Tensor, expected) -> None:
    assert_close(actual, torch.as_tensor(expected).float(), atol=1e-6, rtol=0)


def tiny_vae() -> AutoencoderKL:
    return AutoencoderKL(block_out_channels=(8, 8), norm_num_groups=4, sample_size=16,
                         down_block_types=("DownEncoderBlock2D",) * 2,
                         up_block_types=("UpDecoderBlock2D",) * 2,
                         scaling_factor=1.5, shift_factor=0.06)  # fmt: skip


def tiny_sd3(scheduler, pipeline: type = StableDiffusion3Pipeline):
    torch.manual_seed(0)
    transformer = SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, out_channels=4, num_layers=2,
        attention_head_dim=8, num_attention_heads=4, caption_projection_dim=32,
        joint_attention_dim=32, pooled_projection_dim=16, pos_embed_max_size=8,
    )  # fmt: skip
    pipe = pipeline(transformer=transformer, vae=tiny_vae(), scheduler=scheduler, **NO_ENCODERS)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def latents_of(pipe, **kwargs) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return pipe(**PROMPT_EMBEDS, generator=generator, output_type="latent", **kwargs).images


# --- the grids -------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 2, 4, 8, 28])
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_both_grids_as_tensors(shift: float, steps: int) -> None:
    """If the stock half fails, diffusers has changed; `stock_grid` stays the frozen baseline."""
    stock, ours = FlowMatchEulerDiscreteScheduler(shift=shift), Rectified(shift=shift)
    assert_grid(grid_of(stock, steps), stock_grid(steps, shift))
    assert_grid(grid_of(ours, steps), rectified_grid(steps, shift))
    assert torch.equal(ours.timesteps, 1000 * ours.sigmas[:-1])
    assert ours.num_inference_steps == len(ours.timesteps) == steps


def test_the_fix_without_code_gives_the_same_grid() -> None:
    stock = FlowMatchEulerDiscreteScheduler(shift=3.0)
    theirs = grid_of(stock, sigmas=[1, 0.75, 0.5, 0.25])
    assert torch.equal(theirs, grid_of(Rectified(shift=3.0), 4))
    assert_grid(theirs, PAPER_GRID)


@pytest.mark.parametrize("guidance_scale", [1.0, 5.0])
def test_the_fix_without_code_gives_the_same_latents(guidance_scale: float) -> None:
    stock = tiny_sd3(FlowMatchEulerDiscreteScheduler(shift=3.0))
    settings = {"num_inference_steps": 4, "guidance_scale": guidance_scale}
    flawed = latents_of(stock, **settings)
    fixed = latents_of(stock, sigmas=[1, 0.75, 0.5, 0.25], **settings)
    stock.scheduler = Rectified.from_config(stock.scheduler.config)
    ours = latents_of(stock, **settings)
    assert torch.equal(ours, fixed)
    assert not torch.allclose(ours, flawed, atol=1e-3)


@pytest.mark.parametrize("kind", ["exponential", "linear"])
@pytest.mark.parametrize("mu", [0.5, 1.15])
def test_dynamic_shift(kind: str, mu: float) -> None:
    scheduler = Rectified(use_dynamic_shifting=True, time_shift_type=kind, shift=3.0)
    shift = math.exp(mu) if kind == "exponential" else mu
    assert_grid(grid_of(scheduler, 4, mu=mu), rectified_grid(4, shift))
    with pytest.raises(ValueError, match="mu"):
        scheduler.set_timesteps(4)


@pytest.mark.parametrize("steps", [1, 4, 28])
@pytest.mark.parametrize("dynamic", [True, False])
def test_where_a_pipeline_passes_its_own_sigmas_both_grids_agree(dynamic, steps: int) -> None:
    config = {"use_dynamic_shifting": dynamic, "shift": 3.0}
    flux_sigmas, mu = np.linspace(1.0, 1 / steps, steps), 0.8
    stock = grid_of(FlowMatchEulerDiscreteScheduler(**config), sigmas=flux_sigmas, mu=mu)
    assert torch.equal(stock, grid_of(Rectified(**config), sigmas=flux_sigmas, mu=mu))
    assert_grid(stock, grid_of(Rectified(**config), steps, mu=mu))


def test_flux_makes_the_same_latents_with_either_scheduler() -> None:
    torch.manual_seed(0)
    transformer = FluxTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=32, pooled_projection_dim=16,
        axes_dims_rope=(4, 4, 8),
    )  # fmt: skip
    no_encoders = dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
    stock = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=3.0)
    pipe = FluxPipeline(transformer=transformer, vae=tiny_vae(), scheduler=stock, **no_encoders)
    pipe.set_progress_bar_config(disable=True)

    def latents() -> Tensor:
        return pipe(prompt_embeds=PROMPT_EMBEDS["prompt_embeds"], height=32, width=32,
                    pooled_prompt_embeds=PROMPT_EMBEDS["pooled_prompt_embeds"],
                    num_inference_steps=4, output_type="latent",
                    generator=torch.Generator().manual_seed(0)).images  # fmt: skip

    with_stock = latents()
    pipe.scheduler = Rectified.from_config(pipe.scheduler.config)
    assert torch.equal(latents(), with_stock)


def test_shift_terminal_is_the_last_time_that_is_asked_for() -> None:
    scheduler = Rectified(shift=3.0, shift_terminal=0.1)
    assert_grid(grid_of(scheduler, 4), [1, 0.82, 0.55, 0.1, 0])
    stock = FlowMatchEulerDiscreteScheduler(shift=3.0, shift_terminal=0.1)
    assert torch.equal(scheduler.sigmas, grid_of(stock, sigmas=[1, 0.75, 0.5, 0.25]))
    assert_grid(grid_of(scheduler, 1), [1, 0])


@pytest.mark.parametrize("spacing", ["karras", "exponential", "beta"])
def test_other_spacings_act_between_the_same_ends(spacing: str) -> None:
    if spacing == "beta":
        pytest.importorskip("scipy")
    config = {"shift": 3.0, f"use_{spacing}_sigmas": True}
    ours = grid_of(Rectified(**config), 4)
    stock = grid_of(FlowMatchEulerDiscreteScheduler(**config), sigmas=[1, 0.75, 0.5, 0.25])
    assert torch.equal(ours, stock)
    assert_grid(ours[[0, 3, 4]], [1, 0.5, 0])
    assert not torch.allclose(ours, torch.tensor(PAPER_GRID), atol=0.01)


def test_inverted_sigmas_run_from_zero_to_one() -> None:
    scheduler = Rectified(shift=3.0, invert_sigmas=True, window_edges=PAPER_GRID)
    assert_grid(grid_of(scheduler, 4), [0, 0.1, 0.25, 0.5, 1])


def test_set_shift_moves_the_next_grid() -> None:
    scheduler = Rectified(shift=1.0)
    scheduler.set_shift(3.0)
    assert_grid(grid_of(scheduler, 4), PAPER_GRID)


# --- all else is stock -----------------------------------------------------------------------


@pytest.mark.parametrize("stochastic", [False, True])
def test_steps_are_stock_euler_updates(stochastic: bool) -> None:
    config = {"shift": 3.0, "stochastic_sampling": stochastic}
    ends = []
    for scheduler in (Rectified(**config), FlowMatchEulerDiscreteScheduler(**config)):
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(2, 4, 8, 8, generator=generator)
        scheduler.set_timesteps(sigmas=[1, 0.75, 0.5, 0.25])
        for t in scheduler.timesteps:
            v = torch.randn(x.shape, generator=generator)
            x = scheduler.step(v, t, x, generator=generator, return_dict=False)[0]
        ends.append(x)
    assert torch.equal(*ends)


def sd3_field(pipe):
    return lambda x, t, cond: (
        pipe.transformer(
            x, timestep=1000 * t, encoder_hidden_states=cond[0], pooled_projections=cond[1]
        ).sample
    )


@pytest.mark.parametrize("guidance_scale", [1.0, 5.0])
def test_a_pipeline_solves_what_rollout_solves(guidance_scale: float) -> None:
    pipe = tiny_sd3(Rectified(shift=3.0))
    eps = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(7))
    cond, empty = list(PROMPT_EMBEDS.values())[:2], list(PROMPT_EMBEDS.values())[2:]
    with torch.no_grad():
        field = guided(sd3_field(pipe), guidance_scale, tuple(empty))
        expected = rollout(field, eps, rectified_grid(4, 3.0), tuple(cond)).end
    actual = latents_of(pipe, num_inference_steps=4, guidance_scale=guidance_scale)
    assert_close(actual, expected, atol=1e-5, rtol=0)


def test_img2img_starts_in_the_middle_of_the_grid() -> None:
    pipe = tiny_sd3(Rectified(shift=3.0, window_edges=PAPER_GRID), StableDiffusion3Img2ImgPipeline)
    x_0 = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    eps = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(7))
    actual = latents_of(pipe, image=x_0, height=16, width=16, strength=0.5,
                        num_inference_steps=4, guidance_scale=1.0)  # fmt: skip
    assert pipe.scheduler.begin_index == 2
    with torch.no_grad():
        cond = tuple(PROMPT_EMBEDS.values())[:2]
        start = interpolate(x_0, eps, 0.75)
        expected = rollout(sd3_field(pipe), start, [0.75, 0.5, 0.0], cond).end
    assert_close(actual, expected, atol=1e-5, rtol=0)


def test_scale_noise_is_the_straight_path() -> None:
    scheduler = Rectified(shift=3.0)
    scheduler.set_timesteps(4)
    x_0, eps = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
    noisy = scheduler.scale_noise(x_0, scheduler.timesteps, eps)
    assert_close(noisy, interpolate(x_0, eps, torch.tensor(PAPER_GRID[:-1])))


# --- configuration ---------------------------------------------------------------------------


def test_every_stock_argument_is_taken_with_its_stock_default() -> None:
    stock = inspect.signature(FlowMatchEulerDiscreteScheduler.__init__).parameters
    ours = inspect.signature(Rectified.__init__).parameters
    assert {name: ours[name].default for name in stock} == {n: p.default for n, p in stock.items()}
    set_timesteps = inspect.signature(FlowMatchEulerDiscreteScheduler.set_timesteps).parameters
    assert list(inspect.signature(Rectified.set_timesteps).parameters) == list(set_timesteps)


def test_config_passes_from_stock_to_ours_and_back() -> None:
    stock = FlowMatchEulerDiscreteScheduler(
        shift=3.0, base_shift=0.4, shift_terminal=0.02, num_train_timesteps=500
    )
    ours = Rectified.from_config(stock.config, window_edges=PAPER_GRID)
    assert {k: ours.config[k] for k in stock.config if k[0] != "_"} == {
        k: v for k, v in stock.config.items() if k[0] != "_"
    }
    again = FlowMatchEulerDiscreteScheduler.from_config(ours.config)
    assert grid_of(again, 4).tolist() == grid_of(stock, 4).tolist()


def test_save_and_load(tmp_path: Path) -> None:
    Rectified(shift=3.0, window_edges=PAPER_GRID, allow_grid_mismatch=True).save_pretrained(
        tmp_path
    )
    loaded = Rectified.from_pretrained(tmp_path)
    assert loaded.config.window_edges == PAPER_GRID
    assert loaded.config.allow_grid_mismatch is True
    assert_grid(grid_of(loaded, 4), PAPER_GRID)


@pytest.mark.parametrize("steps", [4, 8, 28])
def test_grids_with_every_edge_are_taken(steps: int) -> None:
    assert_grid(
        grid_of(Rectified(shift=3.0, window_edges=PAPER_GRID), steps), rectified_grid(steps, 3.0)
    )


def test_grids_without_an_edge_are_refused_unless_asked_for_by_name() -> None:
    with pytest.raises(ValueError) as refusal:
        Rectified(shift=3.0, window_edges=PAPER_GRID).set_timesteps(2)
    assert format_grid(PAPER_GRID) in str(refusal.value)
    assert "[1, 0.75, 0]" in str(refusal.value)
    with pytest.raises(ValueError, match="0.9"):
        Rectified(shift=1.0, window_edges=PAPER_GRID).set_timesteps(4)
    with pytest.raises(ValueError, match="0.9"):  # already shifted: a common mistake
        Rectified(shift=3.0, window_edges=PAPER_GRID).set_timesteps(sigmas=PAPER_GRID[:-1])
    lenient = Rectified(shift=3.0, window_edges=PAPER_GRID, allow_grid_mismatch=True)
    assert_grid(grid_of(lenient, 2), [1, 0.75, 0])


@pytest.mark.parametrize("bad", [{"window_edges": [1.0, 0.5]}, {"shift": 0.0}, {"shift": math.nan}])
def test_a_bad_configuration_is_refused_at_once(bad: dict) -> None:
    with pytest.raises(ValueError, match=r"fall strictly from 1 to 0|give a positive number"):
        Rectified(**bad)


RELOAD = """
import sys
import flowsteer
from diffusers import DiffusionPipeline
pipe = DiffusionPipeline.from_pretrained(sys.argv[1], **dict.fromkeys(sys.argv[2:]))
assert type(pipe.scheduler) is flowsteer.RectifiedFlowMatchEulerDiscreteScheduler
pipe.scheduler.set_timesteps(4)
print(pipe.scheduler.sigmas.tolist())
"""


def test_a_saved_pipeline_gives_the_scheduler_back_to_a_program_that_imports_flowsteer(
    tmp_path: Path,
) -> None:
    tiny_sd3(Rectified(shift=3.0)).save_pretrained(tmp_path)
    reload = subprocess.run(
        [sys.executable, "-c", RELOAD, tmp_path, *NO_ENCODERS],
        env={**os.environ, "PYTHONPATH": str(Path(flowsteer.__file__).parents[1])},
        capture_output=True, text=True,
    )  # fmt: skip
    assert reload.returncode == 0, reload.stderr
    assert_grid(torch.tensor(json.loads(reload.stdout)), PAPER_GRID)
