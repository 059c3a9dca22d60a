"""How the emoji pipeline reads a prompt: normalised first, and with a word about what is lost."""

from __future__ import annotations

import warnings
from typing import Any

from flowsteer.emoji.words import normalize_prompt, unknown_words
from flowsteer.locks import TURN
from flowsteer.pipelines import DefaultsPipeline
from flowsteer.validation import PromptWarning, shorten


class EmojiPipeline(DefaultsPipeline):
    """The bundled model's pipeline, which also reads emoji characters ("🐨 on blue").

    To diffusers it is an ordinary StableDiffusion3Pipeline: `save_pretrained` writes one, and
    `AutoPipelineForImage2Image.from_pipe` finds its kin, without the reading of emoji characters.
    """

    reads = "emoji"

    def encode_prompt(self, prompt: Any, *args: Any, **kwargs: Any) -> Any:
        """As in StableDiffusion3Pipeline, on prompts that `read_prompt` has normalised."""
        with TURN:
            if isinstance(prompt, str):
                prompt = read_prompt(prompt, self.tokenizer)
            elif prompt is not None:
                prompt = [read_prompt(text, self.tokenizer) for text in prompt]
            return super().encode_prompt(prompt, *args, **kwargs)


# both go by a class's name; a name that stock diffusers lacks would be refused there
EmojiPipeline.__name__ = DefaultsPipeline.__name__


def read_prompt(prompt: str, tokenizer: Any) -> str:
    """The part of a prompt that the emoji model reads, in its own spelling.

    Warns:
        PromptWarning: one line for words it does not know, one for words past its limit.
    """
    text = normalize_prompt(prompt)
    if unknown := unknown_words(prompt):
        _warn(f"the emoji model does not know {_quoted(unknown)} in {shorten(prompt)}")
    elif prompt.strip() and not text:
        _warn(f"the emoji model reads nothing in {shorten(prompt)}; name what to draw")
    kept, lost = split_at_limit(text, tokenizer)
    if lost:
        _warn(
            f"the emoji model reads {tokenizer.model_max_length - 2} tokens of a prompt;"
            f" {_quoted(lost)} at its end has no effect"
        )
    return kept


def split_at_limit(text: str, tokenizer: Any) -> tuple[str, list[str]]:
    """A prompt's words within the tokenizer's `model_max_length`, and the words past it."""
    words = text.split()
    fit, over = 0, len(words) + 1
    while over - fit > 1:
        middle = (fit + over) // 2
        length = len(tokenizer(" ".join(words[:middle])).input_ids)
        fit, over = (middle, over) if length <= tokenizer.model_max_length else (fit, middle)
    return " ".join(words[:fit]), words[fit:]


def _warn(message: str) -> None:
    warnings.warn(message, PromptWarning, stacklevel=3)


def _quoted(words: list[str]) -> str:
    return ", ".join(repr(word) for word in words)
