"""The table of solvers: its errors are true ones, its calls are those made."""

import json

import pytest
import torch

from flowsteer.emoji.prompts import load_prompts
from flowsteer.evaluation.solvers import (
    SolverRow,
    calls_to_reach,
    measure_solvers,
    solver_markdown,
    solver_table,
)
from flowsteer.evaluation.study import Variant, prepare, sample
from flowsteer.flow import GaussianMixture, TimeWindows, heun_step, rectified_grid, rollout
from flowsteer.measure import relative_l2

CURVED = GaussianMixture(
    torch.tensor([[2.0, 0.0], [-2.0, 1.0], [0.0, -2.0]], dtype=torch.float64),
    torch.full((3,), 0.5, dtype=torch.float64),
    torch.ones(3),
).velocity
WINDOWS = TimeWindows.from_grid(rectified_grid(4, 3.0))


def noise(count=64):
    return torch.randn(count, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def measure(substeps, field=CURVED):
    return list(measure_solvers(field, noise(), None, WINDOWS, 3.0, substeps))


def test_errors_are_those_of_the_rollout_at_each_edge():
    (row,) = measure({"euler": (5,)})
    exact = rollout(CURVED, noise(), rectified_grid(800, 3.0), step=heun_step).states[::200]
    euler = rollout(CURVED, noise(), rectified_grid(20, 3.0)).states[::5]
    assert row.edges == WINDOWS.edges[1:]
    for k in range(4):
        expected = relative_l2(euler[k + 1], exact[k + 1])
        torch.testing.assert_close(
            torch.tensor(row.errors[k]).double(), expected, rtol=0.02, atol=1e-4
        )
        assert row.edge_errors[k] == pytest.approx(sum(row.errors[k]) / 64)
    assert row.endpoint.low < row.endpoint.mean == pytest.approx(row.edge_errors[3])


def test_errors_fall_by_the_solvers_order():
    """Twice the substeps: half the error at first order, a quarter at second."""
    rows = measure({"euler": (8, 16), "heun": (4, 8), "multistep": (8, 16)})
    ratios = [
        few.endpoint.mean / many.endpoint.mean
        for few, many in zip(rows[::2], rows[1::2], strict=True)
    ]
    assert 1.6 < ratios[0] < 2.4
    assert min(ratios[1:]) > 3


@pytest.mark.parametrize("solver", ["euler", "heun", "multistep"])
def test_calls_are_those_made(solver):
    times = []

    def counted(x, t, cond):
        times.append(t)
        return CURVED(x, t)

    (row,) = measure({solver: (3,)}, counted)
    assert len(times) == row.calls + 4 * 2 * 50  # and those of the reference


def test_a_straight_teacher_is_followed_by_all():
    eps, x_0 = noise(), noise().flip(0) + 3
    for row in measure({"euler": (1,), "heun": (1,), "multistep": (2,)}, lambda x, t, c: eps - x_0):
        assert max(row.edge_errors) < 1e-12


def test_the_table_of_a_pipeline(tiny):
    """Euler's end is the sampler's of the study, and the reference's own row is exact."""
    prompts = load_prompts("dev", 6)
    rows = list(
        solver_table(
            tiny, prompts, {"euler": (2,), "heun": (6,)}, guidance_scale=2.0, reference_substeps=6
        )
    )
    assert [(row.solver, row.calls) for row in rows] == [("euler", 8), ("heun", 48)]
    assert rows[1].edge_errors == (0, 0, 0, 0)
    setting = prepare(tiny, prompts)
    euler = sample(tiny, setting, Variant("euler", 8, 2.0))
    fine = sample(tiny, setting, Variant("fine", 120, 2.0))
    errors = torch.tensor(rows[0].errors[-1], dtype=torch.float64)
    torch.testing.assert_close(errors, relative_l2(euler, fine), rtol=0.1, atol=1e-4)


def test_the_teachers_own_guidance_is_the_default(tiny):
    prompts = load_prompts("dev", 6)
    choice = {"euler": (1,)}
    (default,) = solver_table(tiny, prompts, choice, reference_substeps=2)
    (told,) = solver_table(tiny, prompts, choice, guidance_scale=7.0, reference_substeps=2)
    assert default.errors == told.errors


def row_of(solver, substeps, error):
    return SolverRow(solver, substeps, 4 * substeps, (0.5, 0.0), ((error / 2,) * 2, (error,) * 2))


def test_calls_to_reach_an_error_follow_the_power_law_between_rows():
    """Second order: error 16 / calls^2 reaches 0.01 at 40 calls."""
    rows = [row_of("heun", n, 16 / (4 * n) ** 2) for n in (5, 20)] + [row_of("euler", 1, 1.0)]
    assert calls_to_reach(rows, "heun", 0.01) == pytest.approx(40)
    assert calls_to_reach(rows, "heun", 0.005, edge=0) == pytest.approx(40)
    assert calls_to_reach(rows, "heun", 16 / 80**2) == pytest.approx(80)
    assert calls_to_reach(rows, "heun", 0.5) is None
    assert calls_to_reach(rows, "heun", 1e-4) is None
    assert calls_to_reach(rows, "euler", 1.0) is None  # one row is no line


def test_rows_as_markdown_and_json():
    row = row_of("multistep", 5, 0.0345)
    head, rule, line = solver_markdown([row]).splitlines()
    assert head.count("|") == rule.count("|") == line.count("|") == 7
    assert "error at 0.5, %" in head and "error at 0, %" in head
    assert line == "| multistep | 5 | 20 | 40 | 1.73 | 3.45 [3.45, 3.45] |"
    told = json.loads(json.dumps(row.to_json()))
    assert told["errors"] == [[0.01725] * 2, [0.0345] * 2]
    assert told["endpoint"]["mean"] == pytest.approx(0.0345)


def test_an_unknown_solver_is_refused_before_any_call(tiny):
    def never(x, t, cond):
        raise AssertionError("called")

    with pytest.raises(ValueError, match="solver = 'rk45' is unknown"):
        measure({"euler": (1,), "rk45": (2,)}, never)
