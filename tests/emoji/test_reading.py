"""Prompts are read back as what they were drawn from."""

from __future__ import annotations

import pytest

from flowsteer.emoji.prompts import EvalPrompt, PromptObject, load_prompts
from flowsteer.emoji.reading import read_scene


def named(prompt: EvalPrompt):
    return prompt.objects, prompt.background, prompt.relation, prompt.place


@pytest.mark.parametrize("split", ["dev", "test"])
def test_every_prompt_of_emojieval_is_read_as_it_was_made(split):
    wrong = []
    for prompt in load_prompts(split):
        read = read_scene(prompt.text)
        if read is None or named(read) != named(prompt):
            wrong.append(prompt.text)
    assert wrong == []


def test_emoji_characters_other_names_and_spellings():
    assert named(read_scene("🐨 on blue")) == ((PromptObject("koala"),), ("blue",), None, None)
    assert read_scene("🐨🐨🐨").objects == (PromptObject("koala", count=3),)
    assert read_scene("3 tiny KOALAS").objects == (PromptObject("koala", count=3),)
    two = read_scene("a koala to the right of a flat pizza, on a grey background")
    assert two.relation == "right of" and two.background == ("gray",)
    assert read_scene("a koala in the centre").place == "middle"
    assert read_scene("a fox in noto style").objects == (PromptObject("fox", "noto"),)


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "some koalas",
        "koalas",
        "a koala flurbelix",
        "a koala and a koala",
        "five koalas",
        "blue",
    ],
)
def test_what_it_does_not_understand_it_does_not_judge(prompt):
    assert read_scene(prompt) is None
