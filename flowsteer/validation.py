"""Checks of what users type, shared by the commands, the app and Python callers.

Every check returns the value in its proper type or raises a one-line `ValueError` that names the
value, the limit and the fix.
"""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Sequence
from typing import Any

MAX_PROMPT_CHARACTERS = 1000
MAX_STEPS = 1000  # the number of times the published models were trained on
MAX_GUIDANCE_SCALE = 100.0
SEED_LIMIT = 2**32  # torch's CPU generator reads 32 bits: larger seeds would repeat smaller ones
SCHEDULERS = ("rectified", "stock")


class PromptWarning(UserWarning):
    """Part of a prompt has no effect: unknown words, or words past the model's limit."""


def check_prompt(prompt: Any) -> str:
    """A prompt without surrounding white space, 1 to 1,000 characters long.

    Raises:
        ValueError: if it is no text, empty, or too long.
    """
    if not isinstance(prompt, str):
        raise ValueError(f"prompt = {shorten(prompt)} must be text; write it as a string")
    if not prompt.strip():
        raise ValueError(
            f"prompt = {shorten(prompt)} is empty; name what to draw, such as 'a 3d koala'"
        )
    if len(prompt) > MAX_PROMPT_CHARACTERS:
        raise ValueError(
            f"prompt has {len(prompt):,} characters, the limit is {MAX_PROMPT_CHARACTERS:,};"
            f" shorten it ({shorten(prompt)})"
        )
    return prompt.strip()


def check_prompts(prompts: Any) -> list[str]:
    """One prompt or a sequence of them, each checked, as a list.

    Raises:
        ValueError: if there is none, or one of them is bad.
    """
    if isinstance(prompts, str) or not isinstance(prompts, Sequence):
        return [check_prompt(prompts)]
    if not prompts:
        raise ValueError("prompts is empty; give at least one prompt")
    return [check_prompt(prompt) for prompt in prompts]


def check_seed(seed: Any) -> int:
    """A whole number from 0 to 2**32 - 1.

    Raises:
        ValueError: if it is anything else.
    """
    return check_whole_number("seed", seed, 0, SEED_LIMIT - 1)


def check_num_inference_steps(num_inference_steps: Any) -> int:
    """A whole number from 1 to 1,000.

    Raises:
        ValueError: if it is anything else.
    """
    return check_whole_number("num_inference_steps", num_inference_steps, 1, MAX_STEPS)


def check_guidance_scale(guidance_scale: Any) -> float:
    """A finite number from 1 (no guidance) to 100.

    Raises:
        ValueError: if it is anything else.
    """
    most = MAX_GUIDANCE_SCALE
    return check_number("guidance_scale", guidance_scale, 1.0, most, "; 1 means no guidance")


def check_scheduler(scheduler: Any) -> str:
    """The name of a grid: "rectified" or "stock".

    Raises:
        ValueError: if it is anything else.
    """
    if scheduler not in SCHEDULERS:
        names = " or ".join(repr(name) for name in SCHEDULERS)
        raise ValueError(f"scheduler = {shorten(scheduler)} is unknown; use {names}")
    return scheduler


def check_path(name: str, value: Any) -> str:
    """A name or path as text.

    Raises:
        ValueError: if it is neither text nor a path of text.
    """
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(text, str):
        raise ValueError(f"{name} = {shorten(value)} must be text: a name, or the path of a folder")
    return text


def check_flag(name: str, value: Any) -> bool:
    """True or False, and nothing that only counts as one: the text "no" would be yes.

    Raises:
        ValueError: if it is anything else.
    """
    if not isinstance(value, bool):
        raise ValueError(f"{name} = {shorten(value)} must be True or False")
    return value


def check_whole_number(name: str, value: Any, low: int, high: int) -> int:
    """A whole number from `low` to `high`, both included.

    Raises:
        ValueError: if it is anything else, booleans and 4.0 included.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = low - 1
    is_bool = isinstance(value, bool) or "bool" in str(getattr(value, "dtype", ""))
    if is_bool or not low <= number <= high:
        raise ValueError(
            f"{name} = {shorten(value)} must be a whole number from {low:,} to {high:,};"
            f" for example {name} = {max(low, min(high, 4)):d}"
        )
    return number


def check_number(name: str, value: Any, low: float, high: float, fix: str = "") -> float:
    """A number from `low` to `high`, both included, as a float.

    Args:
        name: what it is called, for the message.
        value: of any type; texts and booleans are no numbers.
        low: lowest value.
        high: highest value.
        fix: ends the message.

    Raises:
        ValueError: if it is anything else, NaN and integers beyond float included.
    """
    try:
        number = math.nan if isinstance(value, (bool, str, bytes)) else float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):  # torch's own is a RuntimeError
        number = math.nan
    if not low <= number <= high:
        raise ValueError(
            f"{name} = {shorten(value)} must be a number from {low:g} to {high:g}{fix}"
        )
    return number


def shorten(value: Any, width: int = 40) -> str:
    """`repr(value)` on one line of at most `width` characters."""
    try:
        text = " ".join(repr(value).split())
    except (ValueError, RecursionError):  # an integer of thousands of digits, lists in lists
        text = f"<{type(value).__name__} too large to show>"
    return text if len(text) <= width else text[: width - 3] + "..."


def one_line(error: BaseException) -> str:
    """The first line of an error's message, without its full stop."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__
