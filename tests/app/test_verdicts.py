"""The detector's verdict follows the picture, not the prompt."""

from __future__ import annotations

import random

import pytest
from PIL import Image

from flowsteer.app.verdicts import Judge
from flowsteer.emoji.art import load_art
from flowsteer.emoji.prompts import load_prompts, true_scene_for
from flowsteer.emoji.render import Renderer, pack_scenes
from flowsteer.emoji.scenes import World


@pytest.fixture(scope="module")
def scenes():
    """Prompts and true pictures of them."""
    art = load_art()
    world = World(len(art.concepts))
    prompts = random.Random(0).sample(load_prompts("dev"), 8)
    drawn = [true_scene_for(prompt, i, world) for i, prompt in enumerate(prompts)]
    images = Renderer(art)(pack_scenes(drawn))
    pixels = ((images + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    return [prompt.text for prompt in prompts], [Image.fromarray(picture) for picture in pixels]


def test_true_scenes_are_as_asked_and_those_of_other_prompts_are_not(scenes):
    judge, (texts, pictures) = Judge(), scenes
    own = [judge.look(text, picture) for text, picture in zip(texts, pictures, strict=True)]
    assert sum(verdict.correct for verdict in own) >= 7  # the judge itself errs at times
    others = zip(texts, pictures[1:] + pictures[:1], strict=True)
    found = [judge.look(text, picture) for text, picture in others]
    assert not any(verdict.correct for verdict in found)
    assert all(verdict.problem for verdict in found)


def test_what_is_not_understood_is_looked_at_but_not_judged(scenes):
    verdict = Judge().look("a koala flurbelix", scenes[1][0])
    assert verdict.correct is None and verdict.problem is None
    assert verdict.objects and verdict.seen.startswith(verdict.objects[0])
