"""Both time grids: the numbers that must never move, and the properties that hold for all."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from flowsteer.flow import (
    format_grid,
    rectified_grid,
    refine_grid,
    shift_sigmas,
    stock_grid,
    unshift_sigmas,
)

steps_and_shifts = st.tuples(st.integers(1, 60), st.floats(0.1, 12))

STOCK = {
    (1.0, 1): [1, 0],
    (1.0, 2): [1, 0.001, 0],
    (1.0, 4): [1, 0.667, 0.334, 0.001, 0],
    (1.0, 8): [1, 0.857286, 0.714571, 0.571857, 0.429143, 0.286429, 0.143714, 0.001, 0],
    (3.0, 1): [1, 0],
    (3.0, 2): [1, 0.008929, 0],
    (3.0, 4): [1, 0.857692, 0.602151, 0.008929, 0],
    (3.0, 8): [1, 0.947543, 0.882788, 0.800837, 0.693793, 0.548046, 0.337972, 0.008929, 0],
}
RECTIFIED = {
    (1.0, 1): [1, 0],
    (1.0, 2): [1, 0.5, 0],
    (1.0, 4): [1, 0.75, 0.5, 0.25, 0],
    (1.0, 8): [1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125, 0],
    (3.0, 1): [1, 0],
    (3.0, 2): [1, 0.75, 0],
    (3.0, 4): [1, 0.9, 0.75, 0.5, 0],
    (3.0, 8): [1, 21 / 22, 0.9, 5 / 6, 0.75, 9 / 14, 0.5, 0.3, 0],
}
# the ends of the 28-step grids, where they differ most
STOCK_28 = {1.0: (0.963, 0.038, 0.001), 3.0: (0.987381, 0.110906, 0.008929)}
RECTIFIED_28 = {1.0: (27 / 28, 2 / 28, 1 / 28), 3.0: (81 / 82, 0.1875, 0.1)}


def test_the_example_of_the_paper() -> None:
    assert format_grid(stock_grid(4, 3)) == "[1, 0.8577, 0.6022, 0.0089, 0]"
    assert format_grid(rectified_grid(4, 3)) == "[1, 0.9, 0.75, 0.5, 0]"


@pytest.mark.parametrize(("shift", "steps"), STOCK)
def test_stock_grid_is_frozen(shift: float, steps: int) -> None:
    expected = torch.tensor(STOCK[shift, steps], dtype=torch.float64)
    assert_close(stock_grid(steps, shift), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("shift", "steps"), RECTIFIED)
def test_rectified_grid_is_frozen(shift: float, steps: int) -> None:
    expected = torch.tensor(RECTIFIED[shift, steps], dtype=torch.float64)
    assert_close(rectified_grid(steps, shift), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_28_step_grids_are_frozen(shift: float) -> None:
    for grid, (second, last_but_one, last) in (
        (stock_grid(28, shift), STOCK_28[shift]),
        (rectified_grid(28, shift), RECTIFIED_28[shift]),
    ):
        assert grid.shape == (29,)
        expected = torch.tensor([1, second, last_but_one, last, 0], dtype=torch.float64)
        assert_close(grid[[0, 1, -3, -2, -1]], expected, atol=1e-6, rtol=0)


@given(steps_and_shifts)
def test_grids_fall_strictly_from_exactly_one_to_exactly_zero(choice: tuple[int, float]) -> None:
    for grid in (stock_grid(*choice), rectified_grid(*choice)):
        assert grid.dtype == torch.float64
        assert grid.shape == (choice[0] + 1,)
        assert grid[0] == 1 and grid[-1] == 0
        assert bool((grid[1:] < grid[:-1]).all())


@given(st.floats(0, 1), st.floats(0.1, 12))
def test_unshift_undoes_shift(s: float, shift: float) -> None:
    assert unshift_sigmas(shift_sigmas(s, shift), shift) == pytest.approx(s, abs=1e-12)


@given(steps_and_shifts)
def test_every_rectified_step_covers_the_same_unshifted_share(choice: tuple[int, float]) -> None:
    steps, shift = choice
    sizes = -unshift_sigmas(rectified_grid(steps, shift), shift).diff()
    assert_close(sizes, torch.full_like(sizes, 1 / steps), atol=1e-12, rtol=0)


@given(st.integers(1, 6), st.integers(1, 9), st.floats(0.1, 12))
def test_refined_rectified_grid_is_the_finer_one(steps: int, substeps: int, shift: float) -> None:
    coarse = rectified_grid(steps, shift)
    fine = refine_grid(coarse, substeps, shift)
    assert_close(fine, rectified_grid(steps * substeps, shift), atol=1e-12, rtol=0)
    assert torch.equal(fine[::substeps], coarse)
    pieces = [refine_grid(coarse[k : k + 2], substeps, shift)[:-1] for k in range(steps)]
    assert torch.equal(torch.cat(pieces), fine[:-1])


@pytest.mark.parametrize("steps", [0, -1, 3.5, True, "4", None])
@pytest.mark.parametrize("grid", [stock_grid, rectified_grid])
def test_a_bad_number_of_steps_is_refused(grid, steps) -> None:
    with pytest.raises(ValueError, match="whole number of at least 1"):
        grid(steps)


@pytest.mark.parametrize("shift", [0.0, -3.0, float("nan"), float("inf")])
@pytest.mark.parametrize("grid", [stock_grid, rectified_grid])
def test_a_bad_shift_is_refused(grid, shift: float) -> None:
    with pytest.raises(ValueError, match="give a positive number"):
        grid(4, shift)
