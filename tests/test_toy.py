"""Distillation in the plane: what it promises, and the mismatch that it is there to show."""

import copy

import pytest
import torch

from flowsteer.distill import METHODS
from flowsteer.flow import rectified_grid
from flowsteer.measure import paired_bootstrap
from flowsteer.toy import ToyTask, distill, pretrain, ring


def learn(task, base, method, **settings):
    student = copy.deepcopy(base)
    reports = list(distill(student, task, method, **{"num_steps": 100} | settings))
    return student, reports


@pytest.fixture(scope="module")
def task():
    return ToyTask()


@pytest.fixture(scope="module")
def base(task):
    return pretrain(task, num_steps=150)


def test_the_ring_is_even():
    mixture = ring(count=4, radius=3.0)
    assert mixture.means.norm(dim=1).tolist() == pytest.approx([3.0] * 4)
    assert mixture.means.mean(0).abs().max() < 1e-6
    with pytest.raises(ValueError, match="count = 0 must be at least 1"):
        ring(0)


def test_data_lie_at_the_components_that_are_named(task):
    cond = torch.tensor([0, 3] * 500)
    x_0 = task.data(cond, torch.Generator().manual_seed(0))
    spread = (x_0 - task.mixture.means[cond]).std(0)
    assert spread.tolist() == pytest.approx([0.3, 0.3], rel=0.1)


def test_an_exam_is_passed_by_the_teacher_with_many_steps_alone(task):
    exam = task.exam(count=64)
    distances = [
        exam.distances(task.teacher, rectified_grid(steps, task.shift)).mean().item()
        for steps in (4, 40, 400)
    ]
    assert distances[0] > 5 * distances[1] > 25 * distances[2]
    assert torch.equal(task.exam(64).ends, exam.ends)
    assert not torch.equal(task.exam(64, seed=2).eps, exam.eps)


def test_students_begin_with_the_unguided_teachers_velocity(task, base):
    eps, cond = task.draw(256, torch.Generator().manual_seed(9))
    t = torch.full((256,), 0.9)
    exact = task.mixture.velocity(eps, t, cond)
    assert (base(eps, t, cond) - exact).norm() < 0.2 * exact.norm()


@pytest.mark.parametrize("method", METHODS)
def test_every_method_brings_the_student_nearer(method, task, base):
    _, reports = learn(task, base, method, report_every=40)
    assert [report.step for report in reports] == [40, 80, 100]
    assert reports[-1].distance < 0.5 * task.exam().distances(base, task.grid).mean()
    has_critic = METHODS[method].adversarial
    assert all((report.critic_accuracy is not None) == has_critic for report in reports)


def test_the_mismatch_is_there_with_guidance_and_gone_without(task, base):
    """PeRFlow minus OTA, in distance: the two start from one law where the teacher is unguided."""
    gaps = {}
    for scale in (1.0, 5.0):
        task = ToyTask(guidance_scale=scale)
        exam = task.exam()
        perflow, ota = (
            exam.distances(learn(task, base, name)[0], task.grid) for name in ("perflow", "ota")
        )
        gaps[scale] = paired_bootstrap(perflow, ota, num_resamples=500)
    assert gaps[5.0].low > 0.05
    assert abs(gaps[1.0].mean) < 0.02


def test_a_run_repeats_itself_and_its_seed_matters(task, base):
    first, second, other = (
        learn(task, base, "ota", num_steps=3, seed=seed)[1][-1].loss for seed in (0, 0, 1)
    )
    assert first == second != other


def test_the_critics_weights_are_switches(task, base):
    """With both at 0 the critic watches, and the student learns as by OTA."""
    students = [
        learn(task, base, "ota", num_steps=3)[0],
        learn(task, base, "flowsteer", num_steps=3, lambda_adv=0.0, lambda_fm=0.0)[0],
        learn(task, base, "flowsteer", num_steps=3, lambda_adv=0.0)[0],
    ]
    ota, off, matching = (student.to_velocity.weight for student in students)
    assert torch.allclose(ota, off, atol=1e-6)
    assert not torch.allclose(ota, matching, atol=1e-6)


def test_starts_on_the_students_own_path(task, base):
    _, own = learn(task, base, "ota", num_steps=3, share_on_policy=1.0)
    _, teachers = learn(task, base, "ota", num_steps=3)
    assert own[-1].loss != teachers[-1].loss
    for method in ("reflow", "perflow"):
        with pytest.raises(ValueError, match="share_on_policy = 0.5 needs a method whose windows"):
            list(distill(base, task, method, share_on_policy=0.5))


def test_bad_tasks_are_refused():
    with pytest.raises(ValueError, match="guidance_scale = 0.5 must be at least 1"):
        ToyTask(guidance_scale=0.5)
    with pytest.raises(ValueError, match="num_windows = 41 must lie in 1 to 40"):
        ToyTask(num_windows=41)
