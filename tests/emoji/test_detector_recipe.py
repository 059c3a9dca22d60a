import json
from dataclasses import replace

import pytest
import torch

from flowsteer.emoji import detector_recipe
from flowsteer.emoji.art import load_art
from flowsteer.emoji.detector import load_detector
from flowsteer.emoji.detector_loss import degrade
from flowsteer.emoji.detector_recipe import (
    DetectorScenes,
    detector_config,
    evaluate_detector,
    settle_statistics,
    train_detector,
)
from flowsteer.emoji.render import Renderer
from flowsteer.training.data import seeded_generator

TINY = {"widths": (8, 16, 16), "num_concepts": 2}


@pytest.fixture
def config(tmp_path, monkeypatch):
    """A run of seconds; what follows training is cut to match."""
    monkeypatch.setattr(detector_recipe, "STATISTICS_BATCHES", 2)
    monkeypatch.setattr(detector_recipe, "EVALUATION_SCENES", 12)
    return detector_config(
        str(tmp_path / "run"),
        max_train_steps=4,
        train_batch_size=4,
        lr_warmup_steps=1,
        mixed_precision="no",
        checkpointing_steps=2,
    )


def train(config, **options):
    return list(train_detector(config, report_every=1, **TINY, **options))


def test_a_run_reports_and_leaves_a_detector_and_its_figures(config, tmp_path):
    reports = train(config)
    assert [report.step for report in reports] == [1, 2, 3, 4]
    detector = load_detector(tmp_path / "run" / "detector")
    assert len(detector.config.concepts) == len(load_art().concepts)
    figures = json.loads((tmp_path / "run" / "detector.json").read_text())
    assert set(figures) == {"emoji_eval", "found", "concept", "style", "extra"}


def test_a_resumed_run_is_the_uninterrupted_one(config, tmp_path):
    whole = train(config)
    resumed = replace(
        config,
        resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"),
        output_dir=str(tmp_path / "resumed"),
    )
    rest = train(resumed)
    assert [report.step for report in rest] == [3, 4]
    assert [report.loss for report in rest] == pytest.approx(
        [report.loss for report in whole[2:]], rel=1e-4
    )
    first = load_detector(tmp_path / "run" / "detector").state_dict()
    second = load_detector(tmp_path / "resumed" / "detector").state_dict()
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=1e-2, atol=1e-3)


def test_another_seed_draws_other_scenes_and_no_two_batches_are_alike():
    make = DetectorScenes(4, 0, 20)
    assert torch.equal(make(3).place, make(3).place)
    assert not torch.equal(make(3).place, make(4).place)
    assert not torch.equal(make(3).place, DetectorScenes(4, 1, 20)(3).place)


@pytest.mark.slow
def test_a_small_network_learns_two_concepts(config):
    longer = replace(
        config, max_train_steps=120, train_batch_size=16, ema_decay=0.9, checkpointing_steps=1000
    )
    losses = [report.loss for report in train(longer)]
    assert sum(losses[-10:]) < 0.6 * sum(losses[:10])


def test_statistics_are_those_of_the_pictures_and_the_momentum_stays(config):
    train(config)
    detector = load_detector(config.output_dir + "/detector")
    render = Renderer(load_art())
    norm = detector.stem[1][1]
    norm.running_mean.fill_(100)
    settle_statistics(detector, render, DetectorScenes(16, 0, 2))
    means = []
    for number in (2**40, 2**40 + 1):
        pictures = render(DetectorScenes(16, 0, 2)(number))
        pictures = degrade(pictures, seeded_generator("cpu", 0, number))
        means.append(detector.stem[1][0](detector.stem[0](pictures)).mean((0, 2, 3)))
    torch.testing.assert_close(norm.running_mean, sum(means) / 2, rtol=1e-4, atol=1e-5)
    assert norm.momentum == 0.1 and not detector.training


def test_too_few_scenes_to_measure_on_are_refused(config):
    train(config)
    with pytest.raises(ValueError, match="at least 12"):
        evaluate_detector(load_detector(config.output_dir + "/detector"), num_scenes=6)
