"""JSON of bounded size, depth and numbers, that says each thing once."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from typing import Any

from flowsteer.untrusted.opening import StrPath, name_of, read_text
from flowsteer.validation import shorten

MOST_JSON_BYTES = 1_000_000  # of a configuration; ours have under 10,000
MOST_DEPTH = 64  # Python's own reader gives up near 1,000, at a place that depends on the caller
MOST_DIGITS = 40  # transformers writes int(1e30) for "no limit"

# strings are skipped whole, closed or not: no text makes this slower than its length
_STRINGS_AND_BRACKETS = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)
_LONE_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def read_json(path: StrPath, what: str, most_bytes: int = MOST_JSON_BYTES) -> Any:
    """A JSON file; arguments as in `open_regular`.

    Raises:
        ValueError: as `read_text` and `parse_json`.
    """
    return parse_json(read_text(path, what, most_bytes), name_of(path))


def parse_json(text: str, where: str) -> Any:
    """The value of a JSON text.

    Args:
        text: of a size that the caller has bounded.
        where: it comes from, which begins the message.

    Raises:
        ValueError: if it is no JSON, nested deeper than 64, has a number of more than 40 digits
            or one that is not finite, names a key of an object twice, or half a character.
    """
    try:
        _check_depth(text)
        value = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_int=_whole,
            parse_float=_finite,
            parse_constant=_constant,
        )
        if _LONE_SURROGATE.search(text):  # halves of one character are fine in pairs
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        place = f"line {error.lineno:,}, column {error.colno:,}"
        raise ValueError(f"{where} is not readable as JSON: {error.msg} at {place}") from error
    except UnicodeEncodeError as error:
        raise ValueError(f"{where} has half a character (a lone surrogate) in its JSON") from error
    except ValueError as error:
        raise ValueError(f"{where} is not readable as JSON: {error}") from error
    return value


def _check_depth(text: str) -> None:
    depth = 0
    for token in _STRINGS_AND_BRACKETS.finditer(text):
        symbol = text[token.start()]
        depth += (symbol in "[{") - (symbol in "]}")
        if depth > MOST_DEPTH:
            raise ValueError(f"it is nested deeper than {MOST_DEPTH}")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = (name for name, _ in pairs)
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise ValueError(f"{shorten(twice)} stands in it twice")
    return found


def _whole(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"it has a number of {len(digits):,} digits, {shorten(digits)}")
    return int(digits)


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"the number {shorten(digits)} is too large")
    return value


def _constant(name: str) -> float:
    raise ValueError(f"{name} is no number in JSON; write a finite one")
