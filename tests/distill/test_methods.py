"""Every method on the exact Gaussian mixture: where its loss is least, and what a short run gains.

The methods' one optimum is the teacher's mean velocity over the window, told from a point of the
chord. It is known where chords never cross, as those of flows along a line: there the state says
which passage it lies on, and the optimal student makes no error at all.
"""

import copy
import math

import pytest
import torch
from torch import Tensor

from flowsteer.distill import (
    METHODS,
    Batch,
    Solve,
    find_method,
    on_policy_starts,
    window_velocity_loss,
)
from flowsteer.distill.adversarial import critic_loss, edge_states, student_losses
from flowsteer.distill.critic import TrajectoryCritic, locate_edges
from flowsteer.flow import (
    GaussianMixture,
    TimeWindows,
    heun_step,
    interpolate,
    mean_velocity,
    rectified_grid,
    refine_grid,
    rollout,
)
from flowsteer.models.toy import ToyBackbone, ToyField

SHIFT = 3.0
FREE_NUM_WINDOWS = 4


def windows_of(name: str) -> TimeWindows:
    return TimeWindows.from_grid(rectified_grid(METHODS[name].num_windows or FREE_NUM_WINDOWS, 3.0))


def make_batch(mixture, name: str, count: int, generator, share_at_hi: float = 0.0) -> Batch:
    """A batch with what the method needs, and no more; half of the samples are on-policy."""
    method, dtype = METHODS[name], mixture.means.dtype
    num_windows = windows_of(name).num_windows
    eps = torch.randn(count, 2, generator=generator, dtype=dtype)
    depths, pick = torch.rand(2, num_windows, count, generator=generator, dtype=dtype)
    return Batch(
        eps,
        depths * (pick >= share_at_hi),
        x_0=mixture.sample(count, generator) if method.needs_data else None,
        on_policy=torch.rand(count, generator=generator) < 0.5,
        edge=locate_edges(torch.rand(count, generator=generator), num_windows),
    )


# ---- the optimum

LINE = GaussianMixture(
    means=torch.tensor([[1.5, 0.0], [-1.0, 0.0]], dtype=torch.float64),
    std=torch.tensor([0.5, 0.5], dtype=torch.float64),
    weights=torch.tensor([0.6, 0.4], dtype=torch.float64),
)


class Optimum:
    """The best student of the teacher LINE, from tables of its passages along both axes.

    The means of LINE lie on the first axis and their widths agree, so that neither coordinate
    of its velocity depends on the other: two flows along lines.
    """

    def __init__(self, windows: TimeWindows):
        self.windows = windows
        self.x_hi = torch.linspace(-8, 8, 2001, dtype=torch.float64)  # (n,)
        tables = []
        for k in range(windows.num_windows):
            t_hi, t_lo = windows.bounds(k)
            grid = refine_grid((t_hi, t_lo), 240 // windows.num_windows, SHIFT)
            for axis in torch.eye(2, dtype=torch.float64):
                x_hi = self.x_hi[:, None] * axis
                x_lo = rollout(LINE.velocity, x_hi, grid, step=heun_step).end
                tables.append(mean_velocity(x_hi, x_lo, t_hi, t_lo) @ axis)
        self.v = torch.stack(tables).unflatten(0, (-1, 2))  # (K, 2, n)

    def __call__(self, x: Tensor, t: Tensor, cond: None = None) -> Tensor:
        k = self.windows.locate(t)
        below = t - t.new_tensor(self.windows.edges)[k]
        v = self.v[k]  # (b, 2, n)
        chords = self.x_hi + below[:, None, None] * v
        assert (chords.diff() > 0).all()  # they do not cross
        right = torch.searchsorted(chords, x[..., None].contiguous())
        (c_0, v_0), (c_1, v_1) = (
            (chords.gather(2, i)[..., 0], v.gather(2, i)[..., 0]) for i in (right - 1, right)
        )
        return v_0 + (x - c_0) / (c_1 - c_0) * (v_1 - v_0)


@pytest.fixture(scope="module")
def optima():
    return {name: Optimum(windows_of(name)) for name in ("reflow", "ota")}


def optimum_of(name: str, optima) -> Optimum:
    return optima["reflow" if name == "reflow" else "ota"]


DIRECTIONS = {
    "along": lambda x, t: torch.tensor([1.0, 0.0], dtype=x.dtype).expand_as(x),
    "across": lambda x, t: torch.tensor([0.0, 1.0], dtype=x.dtype).expand_as(x),
    "outward": lambda x, t: x,
    "around": lambda x, t: torch.stack([-x[:, 1], x[:, 0]], 1),
    "in waves": lambda x, t: torch.sin(3 * x),
    "in time": lambda x, t: torch.cos(2 * math.pi * t)[:, None] * torch.ones_like(x),
    "in one quadrant": lambda x, t: (x > 0).all(1, keepdim=True) * torch.ones_like(x),
}


def perturb(field, direction: str, amount: float):
    """A field with one more parameter, whose value at the optimum is 0."""
    return lambda x, t, cond=None: field(x, t) + amount * DIRECTIONS[direction](x, t)


def method_loss(student, segments, batch: Batch, critic=None) -> Tensor:
    """The mean loss of all windows, and with a critic that of its judgement and features."""
    pairs = zip(segments, batch.depths, strict=True)
    losses = [window_velocity_loss(student, segment, depths) for segment, depths in pairs]
    total = torch.stack(losses).mean()
    if critic is not None:
        adversarial, matching = student_losses(critic, edge_states(student, segments, batch), None)
        total = total + 0.1 * adversarial + matching
    return total


def start_of(name: str, on_policy: bool, student):
    return on_policy_starts(student) if on_policy else find_method(name).start


CASES = [(name, False) for name in METHODS] + [("ota", True)]


@pytest.mark.parametrize(("name", "on_policy"), CASES)
def test_the_loss_is_zero_at_the_optimum_and_above_it_all_around(name, on_policy, optima):
    """A new critic has no opinion (its judgement is 0), and compares features from the start."""
    batch = make_batch(LINE, name, 64, torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    backbone = ToyBackbone(ToyField(width=16, depth=1).double())
    critic = TrajectoryCritic(backbone) if METHODS[name].adversarial else None
    windows = windows_of(name)
    solve = Solve(240 // windows.num_windows, SHIFT, "multistep")

    def loss(student) -> float:
        start = start_of(name, on_policy, student)
        segments = list(start(LINE.velocity, batch, windows, solve))
        return method_loss(student, segments, batch, critic).item()

    optimum = optimum_of(name, optima)
    least = loss(optimum)
    assert least < 1e-7
    for direction in DIRECTIONS:
        for amount in (-0.02, 0.02):
            assert loss(perturb(optimum, direction, amount)) > least + 1e-5, direction
    assert loss(LINE.velocity) > 0.01


def test_a_critic_that_knows_a_bad_student_prefers_the_optimum(optima):
    optimum, windows = optimum_of("flowsteer", optima), windows_of("flowsteer")
    bad = perturb(optimum, "along", 1.5)
    torch.manual_seed(0)
    critic = TrajectoryCritic(ToyBackbone(ToyField(width=32, depth=2).double()))
    optimizer = torch.optim.Adam(critic.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)

    def states(student):
        batch = make_batch(LINE, "flowsteer", 128, generator)
        start = METHODS["flowsteer"].start(LINE.velocity, batch, windows, Solve(4, SHIFT))
        return edge_states(student, list(start), batch)

    for _ in range(60):
        loss, _ = critic_loss(critic, states(bad), None)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    (good_adv, good_fm), (bad_adv, bad_fm) = (
        student_losses(critic, states(student), None) for student in (optimum, bad)
    )
    assert good_adv < bad_adv - 0.1
    assert good_fm < 0.1 * bad_fm


# ---- a short run

CURVED = GaussianMixture(
    means=torch.tensor([[2.0, 0.0], [-2.0, 1.0], [0.0, -2.0]]),
    std=torch.full((3,), 0.5),
    weights=torch.ones(3),
)


def anneal(parameters, steps: int, lr: float):
    """An optimiser whose rate falls to zero, step by step."""
    optimizer = torch.optim.Adam(parameters, lr=lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: 1 - i / steps)
    for _ in range(steps):
        optimizer.zero_grad()
        yield
        optimizer.step()
        schedule.step()


@pytest.fixture(scope="module")
def pretrained() -> ToyField:
    """A network that has learnt the teacher's velocity."""
    torch.manual_seed(0)
    field, generator = ToyField(), torch.Generator().manual_seed(1)
    for _ in anneal(field.parameters(), 250, 5e-3):
        eps, t = torch.randn(256, 2, generator=generator), torch.rand(256, generator=generator)
        x = interpolate(CURVED.sample(256, generator), eps, t)
        (field(x, t) - CURVED.velocity(x, t)).square().mean().backward()
    return field


def distance_to_endpoints(field, teacher, num_steps: int) -> float:
    """Mean distance from where `num_steps` calls of a field arrive to its teacher's endpoints."""
    eps = torch.randn(1024, 2, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        end = rollout(field, eps, rectified_grid(num_steps, SHIFT)).end
        truth = rollout(teacher, eps, rectified_grid(100, SHIFT), step=heun_step).end
    return (end - truth).norm(dim=1).mean().item()


def distill(student, teacher, name: str, on_policy: bool = False, steps: int = 150) -> None:
    """A short run of a method, with its critic if it has one."""
    windows, generator = windows_of(name), torch.Generator().manual_seed(3)
    start = start_of(name, on_policy, student)
    solve = Solve(20 // windows.num_windows, SHIFT, "multistep")
    critic = None
    if METHODS[name].adversarial:
        critic = TrajectoryCritic(ToyBackbone(copy.deepcopy(student)))
        judging = torch.optim.Adam(critic.parameters(), lr=1e-3)
    for _ in anneal(student.parameters(), steps, 7e-3):
        batch = make_batch(CURVED, name, 128, generator, share_at_hi=0.7)
        segments = list(start(teacher, batch, windows, solve))
        method_loss(student, segments, batch, critic).backward()
        if critic is not None:
            judging.zero_grad()
            critic_loss(critic, edge_states(student, segments, batch), None)[0].backward()
            judging.step()


FACTORS = {"reflow": 20, "perflow": 4, "ota": 4, "flowsteer": 4}


@pytest.mark.parametrize(("name", "on_policy"), CASES)
def test_a_short_run_brings_the_student_nearer_by_a_factor(name, on_policy, pretrained):
    """To the teacher's endpoints, in as many calls as windows: 4, and ReFlow in one."""
    student, teacher = copy.deepcopy(pretrained), CURVED.velocity
    num_steps = windows_of(name).num_windows
    before = distance_to_endpoints(student, teacher, num_steps)
    distill(student, teacher, name, on_policy)
    after = distance_to_endpoints(student, teacher, num_steps)
    assert after < before / FACTORS[name]


def test_a_second_round_of_reflow_is_straighter_than_the_first(pretrained):
    """The first round's student teaches: one call of the second comes nearer to its endpoints."""
    first = copy.deepcopy(pretrained)
    distill(first, CURVED.velocity, "reflow")
    second = copy.deepcopy(first)
    distill(second, first, "reflow")
    before = distance_to_endpoints(first, first, 1)
    assert distance_to_endpoints(second, first, 1) < 0.7 * before


# ---- the table


def test_presets_are_frozen_and_say_where_they_come_from():
    for name, method in METHODS.items():
        assert "arXiv" in method.source
        assert find_method(name) is method
        with pytest.raises(AttributeError):
            method.needs_data = True


def test_what_sets_the_methods_apart():
    assert [name for name, method in METHODS.items() if method.needs_data] == ["perflow"]
    assert [name for name, method in METHODS.items() if method.adversarial] == ["flowsteer"]
    assert METHODS["reflow"].num_windows == 1
    assert METHODS["flowsteer"].start is METHODS["ota"].start is not METHODS["perflow"].start


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match="method = 'magic' is unknown; use one of reflow, perflow"):
        find_method("magic")
