import json
import warnings

import pytest

from flowsteer.emoji.pipeline import build_pipeline
from flowsteer.prompting import EmojiPipeline, read_prompt, split_at_limit
from flowsteer.validation import PromptWarning


@pytest.fixture(scope="module")
def tokenizer():
    return build_pipeline("tiny").tokenizer


@pytest.fixture(scope="module")
def words():
    """A tokenizer that knows whole words, so that 29 of them fit."""
    return build_pipeline("emoji", corpus=["a koala and a pizza"] * 50).tokenizer


def test_known_words_pass_in_silence(words):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_prompt("A Koala!", words) == "a koala"
        assert read_prompt("🐨", words) == "koala"
        assert read_prompt("", words) == ""


def test_unknown_words_are_named_in_one_line(words):
    with pytest.warns(
        PromptWarning, match="does not know 'blorfing' in 'a blorfing koala'"
    ) as seen:
        assert read_prompt("a blorfing koala", words) == "a blorfing koala"
    assert len(seen) == 1
    assert "\n" not in str(seen[0].message)


def test_a_prompt_without_words_is_named(words):
    with pytest.warns(PromptWarning, match="reads nothing"):
        read_prompt("!?", words)


def test_words_past_the_limit_are_named(words):
    prompt = " and ".join(["a koala"] * 12)
    with pytest.warns(PromptWarning, match="'koala' at its end has no effect"):
        kept = read_prompt(prompt, words)
    assert prompt.startswith(kept)
    assert len(words(kept).input_ids) <= 31
    assert len(words(f"{kept} and").input_ids) > 31


@pytest.mark.parametrize("count", [0, 1, 5, 6, 7, 40])
def test_the_split_keeps_as_many_words_as_fit(tokenizer, count):
    text = " ".join(["word"] * count)  # four byte tokens each: seven fit in 29
    kept, lost = split_at_limit(text, tokenizer)
    assert len(kept.split()) == min(count, 7)
    assert len(kept.split()) + len(lost) == count


def test_a_word_too_long_for_the_limit_is_lost_whole(tokenizer):
    assert split_at_limit("x" * 100, tokenizer) == ("", ["x" * 100])


def test_the_pipeline_reads_prompts_alike_alone_and_in_lists():
    pipe = EmojiPipeline(**build_pipeline("tiny").components)
    alone = pipe.encode_prompt("🐨", None, None, do_classifier_free_guidance=False)[0]
    both = pipe.encode_prompt(["Koala", "pizza"], None, None, do_classifier_free_guidance=True)
    assert alone.shape[0] == 1
    assert both[0].shape[0] == both[1].shape[0] == 2
    assert (alone - both[0][:1]).abs().max() < 1e-5


def test_to_diffusers_it_is_the_stock_pipeline():
    """What it saves names a class that diffusers has."""
    pipe = EmojiPipeline(**build_pipeline("tiny").components)
    assert json.loads(pipe.to_json_string())["_class_name"] == "StableDiffusion3Pipeline"
