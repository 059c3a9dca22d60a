from dataclasses import replace

import pytest
import torch

from flowsteer.comparing import COMPARE_COLUMNS, PipelineSet, columns_for, compare
from flowsteer.generation import Settings, generate
from flowsteer.loading import load_pipeline
from flowsteer.measure.distances import relative_l2


@pytest.fixture
def pipelines(tiny):
    return PipelineSet(tiny)


@pytest.fixture
def columns(lora_student):
    """The five columns, the reference shortened to 6 steps."""
    first, *others = columns_for(str(lora_student))
    settings = replace(first.settings, num_inference_steps=6)
    return [replace(first, settings=settings), *others]


def test_the_columns_are_the_apps():
    kinds = [
        (c.settings.student, c.settings.num_inference_steps, c.settings.guidance_scale)
        for c in COMPARE_COLUMNS
    ]
    assert kinds == [
        (None, 28, None),
        (None, 4, None),
        (None, 4, None),
        (None, 4, 1.0),
        ("flowsteer", 4, 1.0),
    ]
    assert [c.settings.scheduler for c in COMPARE_COLUMNS].count("stock") == 1
    assert len({c.key for c in COMPARE_COLUMNS}) == len({c.title for c in COMPARE_COLUMNS}) == 5


def test_another_student_or_none():
    assert len(columns_for("none")) == len(columns_for(None)) == 4
    last = columns_for("/tmp/mine")[-1]
    assert last.settings.student == "/tmp/mine"
    assert "mine" in last.title
    assert columns_for("flowsteer") == list(COMPARE_COLUMNS)


def test_cards_share_noise_and_prompt(pipelines, columns, tiny_folder, lora_student):
    cards = list(compare(pipelines, "a koala", 3, columns))
    assert [card.nfe for card in cards] == [12, 8, 8, 4, 4]
    assert cards[0].distance is None
    for card in cards[1:]:
        expected = relative_l2(card.latents[None], cards[0].latents[None]).item()
        assert card.distance == pytest.approx(expected)
        assert card.distance > 0
    for card, student in [(cards[0], None), (cards[3], None), (cards[4], lora_student)]:
        pipe = load_pipeline(str(tiny_folder), student=student, device="cpu")
        (alone,) = generate(pipe, "a koala", 3, card.column.settings)
        assert alone.image.tobytes() == card.image.tobytes()
        assert alone.sigmas == card.sigmas


def test_the_prompt_is_encoded_once(pipelines, columns):
    calls = []
    pipelines.teacher.text_encoder.register_forward_pre_hook(lambda *args: calls.append(1))
    list(compare(pipelines, "a koala", 0, columns))
    assert len(calls) == 2  # the prompt, and the empty one


def test_cards_stream(pipelines, columns):
    calls = []
    pipelines.teacher.transformer.register_forward_pre_hook(lambda *args: calls.append(1))
    stream = compare(pipelines, "a koala", 0, columns)
    assert calls == []
    next(stream)
    assert len(calls) == 6
    next(stream)
    assert len(calls) == 10


def test_it_stops_between_steps(pipelines, columns):
    calls = []
    pipelines.teacher.transformer.register_forward_pre_hook(lambda *args: calls.append(1))
    cards = list(compare(pipelines, "a koala", 0, columns, should_stop=lambda: len(calls) >= 8))
    assert len(cards) == 1
    assert len(calls) == 8


def test_students_are_loaded_once(pipelines, lora_student):
    first = pipelines.pipeline(str(lora_student))
    assert pipelines.pipeline(str(lora_student)) is first
    assert pipelines.pipeline(None) is pipelines.pipeline("none") is pipelines.teacher
    with pytest.raises(ValueError, match="unknown"):
        pipelines.pipeline("nobody")


@pytest.mark.parametrize(
    ("prompt", "seed", "message"),
    [("", 0, "prompt"), ("x" * 5000, 0, "5,000"), ("koala", -1, "seed"), ("koala", 2**70, "seed")],
)
def test_bad_input_fails_at_once(pipelines, prompt, seed, message):
    with pytest.raises(ValueError, match=message):
        compare(pipelines, prompt, seed, columns_for("none"))


def test_bad_columns_fail_at_once(pipelines, columns):
    with pytest.raises(ValueError, match="at least one"):
        compare(pipelines, "koala", 0, [])
    bad = replace(columns[-1], settings=replace(columns[-1].settings, num_inference_steps=3))
    with pytest.raises(ValueError, match="grid"):
        compare(pipelines, "koala", 0, [columns[0], bad])
    with pytest.raises(ValueError, match="num_inference_steps = 0"):
        compare(pipelines, "koala", 0, [replace(bad, settings=Settings(num_inference_steps=0))])


def test_a_mismatch_is_labelled(pipelines, columns):
    settings = replace(columns[-1].settings, num_inference_steps=3, allow_grid_mismatch=True)
    (card,) = compare(pipelines, "koala", 0, [replace(columns[-1], settings=settings)])
    assert card.grid_mismatch
    assert torch.isfinite(card.latents).all()
