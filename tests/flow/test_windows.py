"""Windows: every time belongs to one of them, and grids are checked against their edges."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flowsteer.flow import TimeWindows, rectified_grid, stock_grid

PAPER = TimeWindows((1.0, 0.9, 0.75, 0.5, 0.0))


@st.composite
def windows(draw: st.DrawFn) -> TimeWindows:
    inner = draw(st.sets(st.floats(2**-10, 1 - 2**-10, width=32), max_size=8))
    return TimeWindows((1.0, *sorted(inner, reverse=True), 0.0))


@given(windows(), st.floats(0, 1, exclude_min=True))
def test_every_time_is_in_exactly_one_window(cut: TimeWindows, t: float) -> None:
    holders = [k for k in range(cut.num_windows) if cut.bounds(k)[1] < t <= cut.bounds(k)[0]]
    assert cut.locate(torch.tensor([t], dtype=torch.float64)).tolist() == holders
    assert len(holders) == 1


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("edges", [PAPER.edges, (1.0, 0.6, 0.3, 0.1, 0.0)])
def test_an_edge_belongs_to_the_window_below_it(edges, dtype: torch.dtype) -> None:
    starts = torch.tensor(edges[:-1], dtype=dtype)
    assert TimeWindows(edges).locate(starts).tolist() == [0, 1, 2, 3]


def test_locate_keeps_the_shape() -> None:
    t = torch.tensor([[1.0, 0.8], [0.75, 1e-6]])
    assert PAPER.locate(t).tolist() == [[0, 1], [2, 3]]


@pytest.mark.parametrize("t", [0.0, -0.1, 1.01, math.nan])
def test_a_time_outside_the_path_is_refused(t: float) -> None:
    with pytest.raises(ValueError, match=r"\(0, 1\]"):
        PAPER.locate(torch.tensor([0.5, t]))


@pytest.mark.parametrize(
    "edges",
    [
        (),
        (1.0,),
        (1.0, 0.5),
        (0.9, 0.0),
        (1.0, 0.5, 0.5, 0.0),
        (1.0, 0.2, 0.5, 0.0),
        (1, math.nan, 0),
    ],
)
def test_edges_must_fall_from_one_to_zero(edges: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="fall strictly from 1 to 0"):
        TimeWindows(edges)


def test_windows_of_a_grid() -> None:
    cut = TimeWindows.from_grid(rectified_grid(4, 3))
    assert cut == PAPER
    assert [cut.bounds(k) for k in range(cut.num_windows)] == [
        (1.0, 0.9), (0.9, 0.75), (0.75, 0.5), (0.5, 0.0),
    ]  # fmt: skip
    for k in (-1, 4):
        with pytest.raises(ValueError, match="give 0 to 3"):
            cut.bounds(k)


def test_a_grid_fits_when_no_step_crosses_an_edge() -> None:
    for steps in (4, 8, 28):
        assert PAPER.contained_in(rectified_grid(steps, 3).float())
    for grid in (rectified_grid(4, 1), rectified_grid(6, 3), stock_grid(4, 3)):
        assert not PAPER.contained_in(grid)


def test_a_grid_that_misses_edges_is_refused_by_name() -> None:
    PAPER.check_grid(rectified_grid(8, 3))
    with pytest.raises(ValueError) as refusal:
        PAPER.check_grid(rectified_grid(2, 3))
    for grid in ("[1, 0.9, 0.75, 0.5, 0]", "[1, 0.75, 0]", "misses [0.9, 0.5]"):
        assert grid in str(refusal.value)


@given(windows(), st.integers(0, 1000), st.floats(0, 1))
def test_drawn_times_lie_in_their_window(cut: TimeWindows, seed: int, share: float) -> None:
    for k in range(cut.num_windows):
        t = cut.sample_times(torch.Generator().manual_seed(seed), k, 64, share)
        assert t.shape == (64,) and t.dtype == torch.float32
        assert (cut.locate(t) == k).all()


def test_drawn_times_are_even_and_share_sits_at_the_start() -> None:
    t = PAPER.sample_times(torch.Generator().manual_seed(0), 2, 20_000, share_at_hi=0.25)
    at_hi = t == 0.75
    assert at_hi.float().mean().item() == pytest.approx(0.25, abs=0.01)
    rest = t[~at_hi]
    assert rest.mean().item() == pytest.approx(0.625, abs=0.002)
    assert rest.std().item() == pytest.approx(0.25 / math.sqrt(12), abs=0.002)
    with pytest.raises(ValueError, match="share from 0 to 1"):
        PAPER.sample_times(torch.Generator(), 0, 4, share_at_hi=1.5)


def test_a_draw_that_rounds_to_the_lower_edge_stays_in_its_window() -> None:
    narrow = TimeWindows((1.0, 0.75, 0.75 - 2**-22, 0.0))
    t = narrow.sample_times(torch.Generator().manual_seed(0), 1, 1000)
    assert (narrow.locate(t) == 1).all()
