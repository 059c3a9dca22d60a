"""The loop: exact resumption, bounds, averages, accumulation, divergence."""

import math
import warnings

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import save_file
from torch import nn

from flowsteer.training import (
    TrainingConfig,
    TrainingDiverged,
    latest_checkpoint,
    load_checkpoint,
    train,
)
from flowsteer.training.data import NumberedBatches, seeded_generator
from flowsteer.training.loop import Rival, Validation


def make_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))


def regression(model):
    """Losses that depend on the step and micro-step alone."""

    def losses(step, micro_step):
        x = torch.randn(16, 3, generator=seeded_generator("cpu", 5, step, micro_step))
        yield (model(x) - x.sum(1, keepdim=True)).square().mean()

    return losses


def config(folder, **settings):
    defaults = {"max_train_steps": 12, "checkpointing_steps": 4, "learning_rate": 1e-2}
    return TrainingConfig(output_dir=str(folder), **(defaults | {"lr_warmup_steps": 3} | settings))


def run(model, cfg, stop_after=None, losses=None):
    reports = []
    for report in train(model, losses or regression(model), cfg, Accelerator(cpu=True)):
        reports.append(report)
        if report.step == stop_after:
            break
    return reports


def test_it_learns_and_reports_every_step(tmp_path):
    reports = run(make_model(), config(tmp_path, max_train_steps=200))
    assert [r.step for r in reports] == list(range(1, 201))
    assert reports[-1].loss < 0.05 * reports[0].loss
    assert reports[-1].seconds_left == 0


@pytest.mark.parametrize("stop_after", [5, 9, 11])
def test_resumed_run_is_bitwise_the_uninterrupted_one(tmp_path, stop_after):
    whole, parts = make_model(), make_model()
    run(whole, config(tmp_path / "whole"))
    run(parts, config(tmp_path / "parts"), stop_after)
    resumed = make_model()
    reports = run(resumed, config(tmp_path / "parts", resume_from_checkpoint="latest"))
    assert reports[0].step == 4 * (stop_after // 4) + 1
    for expected, got in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(expected, got)


def test_seconds_bound_the_run(tmp_path):
    cfg = config(tmp_path, max_train_steps=None, max_train_seconds=0.5)
    reports = run(make_model(), cfg)
    assert reports[-1].seconds_left == 0
    assert latest_checkpoint(tmp_path).name == f"checkpoint-{reports[-1].step}"


def test_accumulated_steps_equal_one_large_step(tmp_path):
    def halves(model):
        def losses(step, micro_step):
            x = torch.randn(16, 3, generator=seeded_generator("cpu", step))
            x = x.chunk(2)[micro_step]
            yield (model(x) - x.sum(1, keepdim=True)).square().mean()

        return losses

    def together(model):
        def losses(step, micro_step):
            x = torch.randn(16, 3, generator=seeded_generator("cpu", step))
            # two losses of one micro-step are summed, each after its own backward pass
            for part in x.chunk(2):
                yield (model(part) - part.sum(1, keepdim=True)).square().mean() / 2

        return losses

    one, two = make_model(), make_model()
    first = run(one, config(tmp_path / "a"), losses=together(one))
    cfg = config(tmp_path / "b", gradient_accumulation_steps=2)
    second = run(two, cfg, losses=halves(two))
    assert [r.loss for r in first] == pytest.approx([r.loss for r in second], rel=1e-6)
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_the_model_ends_with_its_averages(tmp_path):
    """With decay 0 the average is the last value; with a high one it lags behind."""
    last, lagging = make_model(), make_model()
    run(last, config(tmp_path / "a", ema_decay=0.0))
    run(lagging, config(tmp_path / "b", ema_decay=0.999))
    assert not torch.equal(last[0].weight, lagging[0].weight)
    start = make_model()[0].weight
    assert (lagging[0].weight - start).norm() < (last[0].weight - start).norm()


def test_divergence_keeps_the_last_good_checkpoint(tmp_path):
    model = make_model()
    good = regression(model)

    def losses(step, micro_step):
        for loss in good(step, micro_step):
            yield loss * (math.nan if step >= 6 else 1)

    with pytest.raises(TrainingDiverged, match="not finite; lower --learning_rate"):
        run(model, config(tmp_path), losses=losses)
    assert latest_checkpoint(tmp_path).name == "checkpoint-4"


def test_divergence_between_reports_is_not_saved(tmp_path):
    model = make_model()

    def losses(step, micro_step):
        yield model(torch.ones(2, 3)).mean() * (math.nan if step == 5 else 1)

    with pytest.raises(TrainingDiverged):
        list(train(model, losses, config(tmp_path), Accelerator(cpu=True), report_every=1000))
    assert latest_checkpoint(tmp_path).name == "checkpoint-4"


def test_nothing_to_train(tmp_path):
    model = make_model().requires_grad_(False)
    with pytest.raises(ValueError, match="nothing to train"):
        run(model, config(tmp_path))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_train_steps": None}, "set one to bound the run"),
        ({"max_train_steps": 0}, "max_train_steps = 0"),
        ({"learning_rate": math.nan}, "learning_rate = nan"),
        ({"ema_decay": 1.0}, "ema_decay = 1.0"),
        ({"seed": -1}, "seed = -1"),
        ({"train_batch_size": 0}, "train_batch_size = 0"),
    ],
)
def test_bad_configs(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        config(tmp_path, **settings)


def test_cosine_ends_at_zero_and_warmup_starts_small(tmp_path):
    cfg = config(tmp_path, max_train_steps=100, lr_warmup_steps=9)
    assert cfg.learning_rate_at(0, 0.0) == pytest.approx(1e-3)
    assert cfg.learning_rate_at(50, 0.5) == pytest.approx(5e-3)
    assert cfg.learning_rate_at(100, 1.0) == pytest.approx(0)


def test_numbered_batches_are_the_same_from_workers():
    numbers = [NumberedBatches(square, workers, stride=3) for workers in (0, 2)]
    for index in (4, 7, 10, 2):
        assert [batches(index) for batches in numbers] == [index**2] * 2


def square(index):
    return index**2


def test_rival_trains_beside_the_model(tmp_path):
    """Each is moved by its own losses alone, at its own rate, and both are saved."""
    model, rival = make_model(), make_model()
    before = [p.detach().clone() for p in rival.parameters()]
    alone = make_model()
    run(alone, config(tmp_path / "alone"))
    reports = list(
        train(
            model,
            regression(model),
            config(tmp_path / "both"),
            Accelerator(cpu=True),
            rival=Rival(rival, regression(rival), 1e-3),
        )
    )
    for expected, got in zip(alone.parameters(), model.parameters(), strict=True):
        assert torch.equal(expected, got)
    steps = [(p - b).abs().max() for p, b in zip(rival.parameters(), before, strict=True)]
    assert 0 < max(steps) < 12 * 1.1e-3
    assert reports[0].metrics["critic_loss"] == pytest.approx(reports[0].loss)
    assert reports[0].metrics["critic_grad_norm"] > 0


def test_rival_that_diverges_stops_the_run(tmp_path):
    model, rival = make_model(), make_model()

    def wild(step, micro_step):
        yield rival(torch.ones(1, 3)).sum() * (math.inf if step == 5 else 1.0)

    reports = train(
        model,
        regression(model),
        config(tmp_path),
        Accelerator(cpu=True),
        rival=Rival(rival, wild, 1e-3),
    )
    with pytest.raises(TrainingDiverged, match="critic_loss = .* at step 6"):
        list(reports)
    assert latest_checkpoint(tmp_path).name == "checkpoint-4"


def test_validation_sees_the_averages_and_leaves_the_parameters(tmp_path):
    model, seen = make_model(), []
    alone = make_model()
    run(alone, config(tmp_path / "alone"))

    def measure():
        seen.append(model[0].weight.detach().clone())
        return {"seen": float(len(seen))}, None

    reports = list(
        train(
            model,
            regression(model),
            config(tmp_path / "watched"),
            Accelerator(cpu=True),
            validation=Validation(measure, every=5),
        )
    )
    assert [r.step for r in reports if "seen" in r.metrics] == [5, 10, 12]
    assert torch.equal(seen[-1], alone[0].weight)  # the averages, at the end
    for expected, got in zip(alone.parameters(), model.parameters(), strict=True):
        assert torch.equal(expected, got)


def spoiled(model, rate_step, value):
    """Losses that are good, until a step multiplies them."""
    good = regression(model)

    def losses(step, micro_step):
        for loss in good(step, micro_step):
            yield loss * (value if step + 1 == rate_step else 1)

    return losses


@pytest.mark.parametrize("report_every", [1, 1000])
def test_a_checkpoint_whose_next_loss_is_not_finite_is_not_advised(tmp_path, report_every):
    """Its own step still looked well: only the step after it tells that the weights are spoilt."""
    model = make_model()
    cfg = config(tmp_path, checkpointing_steps=2, checkpoints_total_limit=None)
    reports = train(
        model, spoiled(model, 7, math.nan), cfg, Accelerator(cpu=True), report_every=report_every
    )
    with pytest.raises(TrainingDiverged, match="go on with --resume_from_checkpoint checkpoint-4"):
        list(reports)
    with pytest.warns(UserWarning, match="skipped .*checkpoint-6: the loss right after it"):
        assert latest_checkpoint(tmp_path).name == "checkpoint-4"
    assert (tmp_path / "checkpoint-6").is_dir()  # marked, not removed


def test_at_an_absurd_rate_the_advised_checkpoint_is_one_from_before_it(tmp_path, monkeypatch):
    """The loss is read rarely, and a checkpoint is due after the step that spoils the weights."""
    run(make_model(), config(tmp_path, max_train_steps=4, checkpointing_steps=2))
    wild = {"checkpointing_steps": 1, "resume_from_checkpoint": "latest"}
    model = make_model()
    cfg = config(tmp_path, max_train_steps=9, **wild)
    # no flag allows it
    monkeypatch.setattr(TrainingConfig, "learning_rate_at", lambda *arguments: 1e30)
    with pytest.raises(TrainingDiverged, match="--resume_from_checkpoint checkpoint-4"):
        list(train(model, regression(model), cfg, Accelerator(cpu=True), report_every=1000))
    monkeypatch.undo()
    *_, tensors, _ = load_checkpoint(tmp_path / "checkpoint-4")
    for named in tensors.values():
        assert all(tensor.abs().max() < 1e3 for tensor in named.values())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        latest = latest_checkpoint(tmp_path)
        calm = {"resume_from_checkpoint": "latest", "max_train_steps": 12}
        reports = run(make_model(), config(tmp_path, **calm))
    assert latest.name == "checkpoint-4"
    assert [report.step for report in reports][0] == 5 and reports[-1].loss < 1e3


def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    """The loss and the gradient of the one step that there is are good."""
    model = make_model()

    def losses(step, micro_step):
        yield model(torch.ones(1, 3)).square().mean()
        with torch.no_grad():
            model[0].weight.fill_(math.inf)

    with pytest.raises(
        TrainingDiverged, match="after step 1 is not finite.*start again in another"
    ):
        run(model, config(tmp_path, max_train_steps=1), losses=losses)
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_starts_from_a_bad_loss_advises_no_lower_checkpoint_than_there_is(tmp_path):
    """The first step after resuming is of the checkpoint's own weights: data or flags are at fault,
    so the checkpoint stays what it was."""
    run(make_model(), config(tmp_path, max_train_steps=4, checkpoints_total_limit=None))
    model = make_model()
    cfg = config(tmp_path, resume_from_checkpoint="latest")
    with pytest.raises(TrainingDiverged, match="no checkpoint is from before that"):
        run(model, cfg, losses=spoiled(model, 5, math.inf))
    assert latest_checkpoint(tmp_path).name == "checkpoint-4"


def test_a_report_says_which_steps_its_means_are_of(tmp_path):
    run(make_model(), config(tmp_path, max_train_steps=4))
    cfg = config(tmp_path, max_train_steps=12, resume_from_checkpoint="latest")
    model = make_model()
    reports = train(model, regression(model), cfg, Accelerator(cpu=True), report_every=5)
    assert [(report.since, report.step) for report in reports] == [
        (4, 5),
        (5, 8),
        (8, 10),
        (10, 12),
    ]


def test_a_full_disk_is_one_line_that_names_the_last_good_checkpoint(tmp_path, monkeypatch):
    """At the second checkpoint, whichever file it is that no longer fits."""
    written = []

    def full(tensors, file):
        written.append(file)
        if len(written) == 5:
            file.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        return save_file(tensors, file)

    monkeypatch.setattr("flowsteer.training.checkpoints.save_file", full)
    message = r"checkpoint-8 could not be written \(.*No space left.*\); make room and go on"
    with pytest.raises(OSError, match=message + " with --resume_from_checkpoint checkpoint-4"):
        run(make_model(), config(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-4"]
    monkeypatch.undo()
    resumed, whole = make_model(), make_model()
    run(resumed, config(tmp_path, resume_from_checkpoint="latest"))
    run(whole, config(tmp_path / "whole"))
    assert torch.equal(resumed[0].weight, whole[0].weight)
