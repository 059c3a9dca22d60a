"""The line under the prompt says what the command line says."""

from __future__ import annotations

import warnings

import pytest

from flowsteer.app.notes import prompt_notes
from flowsteer.loading import load_pipeline
from flowsteer.prompting import read_prompt
from flowsteer.validation import PromptWarning


@pytest.fixture(scope="module")
def pipe():
    return load_pipeline("emoji", device="cpu")


@pytest.mark.parametrize(
    ("prompt", "notes"),
    [
        ("a 3d koala on blue", []),
        ("🐨 on blue", []),
        ("a flurbel on blue", ["“flurbel” is new to the model and will be guessed."]),
        ("一只考拉 on blue", ["“一只考拉” cannot be read by the model and is left out."]),
        (
            "красная панда",
            [
                "“красная” and “панда” cannot be read by the model and are left out.",
                "The model reads nothing here; name what to draw, such as “a 3d koala”.",
            ],
        ),
        (
            "a flurbel 한국어",
            [
                "“flurbel” is new to the model and will be guessed.",
                "“한국어” cannot be read by the model and is left out.",
            ],
        ),
        ("!?", ["The model reads nothing here; name what to draw, such as “a 3d koala”."]),
    ],
)
def test_words_are_guessed_or_not_read_at_all(pipe, prompt, notes):
    assert prompt_notes(pipe, prompt) == notes
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", PromptWarning)
        read_prompt(prompt, pipe.tokenizer)
    assert bool(told) == bool(notes)


def test_models_that_read_any_text_have_no_notes(tiny):
    assert prompt_notes(tiny, "красная панда") == []
