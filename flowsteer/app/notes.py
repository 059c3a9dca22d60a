"""What the model will not read of a prompt, said before the picture disappoints."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any


def prompt_notes(pipe: Any, prompt: str) -> list[str]:
    """Sentences about what is guessed, not read or left out; none for models but the emoji one.

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
    unknown, read = unknown_words(prompt), set(text.split())
    if guessed := [word for word in unknown if word in read]:
        verb = "is" if len(guessed) == 1 else "are"
        notes.append(f"{_listed(guessed)} {verb} new to the model and will be guessed.")
    if unread := [word for word in unknown if word not in read]:
        verb = "is" if len(unread) == 1 else "are"
        notes.append(f"{_listed(unread)} cannot be read by the model and {verb} left out.")
    if not read:
        notes.append("The model reads nothing here; name what to draw, such as “a 3d koala”.")
    if lost:
        verb = "is" if len(lost) == 1 else "are"
        notes.append(f"The prompt is too long for the model: {_listed(lost)} {verb} left out.")
    return notes


def _listed(words: Sequence[str], limit: int = 5) -> str:
    """Words in quotes, the first few of them."""
    # accents were split from their letters, and Korean into its parts, to be read
    shown = [f"“{unicodedata.normalize('NFC', word)}”" for word in words[:limit]]
    if len(words) > limit:
        shown.append(f"{len(words) - limit} more")
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
