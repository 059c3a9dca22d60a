"""The table of families: its grids against closed forms, its settings against diffusers."""

import diffusers
import pytest
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.cogview4 import pipeline_cogview4
from diffusers.pipelines.flux import pipeline_flux

from flowsteer import RectifiedFlowMatchEulerDiscreteScheduler as Rectified
from flowsteer.cli.main import main
from flowsteer.flow import rectified_grid, stock_grid
from flowsteer.schedule_families import (
    FAMILIES,
    asks_for_even_sigmas,
    asks_for_steps,
    families_report,
    families_table,
    last_steps,
)

LEAVES_THE_GRID = [family for family in FAMILIES if family.asks is asks_for_steps]
PASSES_TIMES = [family for family in FAMILIES if family.asks is not asks_for_steps]


def each(families):
    return pytest.mark.parametrize("family", families, ids=lambda family: family.models)


STEPS = [2, 4, 8, 28]


@each(LEAVES_THE_GRID)
@pytest.mark.parametrize("steps", STEPS)
def test_where_only_n_is_passed_stock_wastes_a_step_and_ours_does_not(family, steps):
    shift = family.config.get("shift", 1.0)
    stock, rectified = last_steps(family, steps)
    assert stock == pytest.approx(stock_grid(steps, shift)[-2].item(), abs=1e-6) and stock < 0.01
    assert rectified == pytest.approx(rectified_grid(steps, shift)[-2].item(), abs=1e-6)
    assert rectified > 1 / steps - 1e-6


@each(PASSES_TIMES)
@pytest.mark.parametrize("steps", STEPS)
def test_where_times_are_passed_both_schedulers_agree(family, steps):
    stock = family.grid(FlowMatchEulerDiscreteScheduler, steps)
    assert stock.equal(family.grid(Rectified, steps))
    if terminal := family.config.get("shift_terminal"):
        assert stock[-2].item() == pytest.approx(terminal, abs=1e-6)
    elif family.asks is asks_for_even_sigmas and family.mu is None:
        expected = rectified_grid(steps, family.config["shift"])
        assert stock.tolist() == pytest.approx(expected.tolist(), abs=1e-6)


@each(FAMILIES)
def test_classes_exist_and_settings_are_the_schedulers(family):
    assert all(hasattr(diffusers, name) for name in family.pipelines) and family.source
    assert set(family.config) <= set(FlowMatchEulerDiscreteScheduler().config)
    assert (family.mu is not None) == family.config.get("use_dynamic_shifting", False)


@pytest.mark.parametrize(
    ("models", "tokens"), [("FLUX.1-dev", 4096), ("Qwen-Image", 4096), ("LTX-Video", 21 * 16 * 22)]
)
def test_mu_is_that_of_the_default_size(models, tokens):
    family = next(family for family in FAMILIES if family.models == models)
    config = FlowMatchEulerDiscreteScheduler(**family.config).config
    ends = [
        config[f"{end}_{what}"] for what in ("image_seq_len", "shift") for end in ("base", "max")
    ]
    assert family.mu == pytest.approx(pipeline_flux.calculate_shift(tokens, *ends), abs=1e-4)


def test_mu_of_cogview4():
    family = next(family for family in FAMILIES if family.models == "CogView4")
    config = FlowMatchEulerDiscreteScheduler(**family.config).config
    mu = pipeline_cogview4.calculate_shift(
        4096, config.base_image_seq_len, config.base_shift, config.max_shift
    )
    assert family.mu == pytest.approx(mu)


@pytest.mark.parametrize("steps", [1, 4, 1000])
def test_the_table_has_an_aligned_row_for_each_family(steps):
    lines = families_table(steps).splitlines()
    assert len(lines) == 2 + len(FAMILIES) and len({len(line) for line in lines}) == 1
    assert f"last of {steps} calls" in families_report(steps)


def test_the_command_prints_it(capsys):
    assert main(["schedule", "--families", "--steps", "8"]) == 0
    assert families_table(8) in capsys.readouterr().out
    assert main(["schedule", "--families", "--shift", "2"]) == 2
    assert "--families" in capsys.readouterr().err
    assert main(["schedule", "--families", "--steps", "0"]) == 2
