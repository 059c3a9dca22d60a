"""What the model will not read of a prompt, said before the picture disappoints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def prompt_notes(pipe: Any, prompt: str) -> list[str]:
    """Sentences about unknown words and words past the limit; none for models but the emoji one.

    Args:
        pipe: from `load_pipeline`.
        prompt: as it was typed.
    """
    from flowsteer.emoji.words import normalize_prompt, unknown_words
    from flowsteer.prompting import EmojiPipeline, split_at_limit

    reads_words = isinstance(pipe, EmojiPipeline)
    if not reads_words:
        return []
    text = normalize_prompt(prompt)
    _, lost = split_at_limit(text, pipe.tokenizer)
    notes = []
    if unknown := unknown_words(text):
        verb = "is" if len(unknown) == 1 else "are"
        notes.append(f"{_listed(unknown)} {verb} new to the model and will be guessed.")
    if lost:
        verb = "is" if len(lost) == 1 else "are"
        notes.append(f"The prompt is too long for the model: {_listed(lost)} {verb} left out.")
    return notes


def _listed(words: Sequence[str], limit: int = 5) -> str:
    """Words in quotes, the first few of them."""
    shown = [f"“{word}”" for word in words[:limit]]
    if len(words) > limit:
        shown.append(f"{len(words) - limit} more")
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
