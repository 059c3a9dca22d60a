"""Limits of settings, written at the fields they belong to, and one check for all of them.

    train_batch_size: Annotated[int, Within(1, 16_384)] = 256

A field's type and limit are the whole rule: no number out of range, no text where a number belongs,
no choice that is not in its `Literal`, whether the value was typed or comes from Python.
"""

from __future__ import annotations

import inspect
import math
import operator
import os
import types
from dataclasses import dataclass, fields
from numbers import Real
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from flowsteer.validation import shorten

LONGEST_TEXT = 4096  # of a path or name


@dataclass(frozen=True)
class Within:
    """The numbers that a field takes: from `low` to `high`, or above `low`, or below `high`."""

    low: float
    high: float
    above: bool = False
    below: bool = False

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high and not (
            (self.above and value == self.low) or (self.below and value == self.high)
        )

    def __str__(self) -> str:
        if self.above:
            return f"above {_digits(self.low)} and at most {_digits(self.high)}"
        return f"from {_digits(self.low)} to {'below ' if self.below else ''}{_digits(self.high)}"


def check_fields(settings: Any) -> None:
    """Check every field of a frozen dataclass by its type and limit, and make numbers plain.

    A subclass that only changes a default keeps the limit. numpy's numbers become Python's own, so
    that they can be written as JSON.

    Raises:
        ValueError: naming the first field that is wrong, its value and what it takes.
    """
    limits: dict[str, Within | None] = {}
    hints: dict[str, Any] = {}
    for cls in reversed(type(settings).__mro__):
        for name, hint in inspect.get_annotations(cls, eval_str=True).items():
            found, limit = _unwrap(hint)
            hints[name], limits[name] = found, limit or limits.get(name)
    for field in fields(settings):
        value = getattr(settings, field.name)
        checked = _check(field.name, value, hints[field.name], limits[field.name])
        if checked is not value:
            object.__setattr__(settings, field.name, checked)


def _unwrap(hint: Any) -> tuple[Any, Within | None]:
    """A type without its annotations, and the limit among them, wherever it stands."""
    if get_origin(hint) is Annotated:
        inner, limit = _unwrap(get_args(hint)[0])
        own = next((extra for extra in hint.__metadata__ if isinstance(extra, Within)), None)
        return inner, own or limit
    if get_origin(hint) in (Union, types.UnionType):
        parts = [_unwrap(part) for part in get_args(hint)]
        limit = next((limit for _, limit in parts if limit is not None), None)
        return Union[tuple(part for part, _ in parts)], limit  # noqa: UP007
    if get_origin(hint) is tuple:
        inner, limit = _unwrap(get_args(hint)[0])
        return tuple[inner, ...], limit  # type: ignore[valid-type]
    return hint, None


def _check(name: str, value: Any, kind: Any, limit: Within | None) -> Any:
    """One value, in its plain type."""
    if get_origin(kind) in (Union, types.UnionType):
        kinds = [part for part in get_args(kind) if part is not type(None)]
        if value is None and len(kinds) < len(get_args(kind)):
            return None
        return _check(name, value, kinds[0], limit)  # every field of ours is X or X | None
    if get_origin(kind) is Literal:
        return _choice(name, value, get_args(kind))
    if get_origin(kind) is tuple:
        if not isinstance(value, tuple | list):
            raise ValueError(f"{name} = {shorten(value)} must be a tuple")
        return tuple(_check(name, item, get_args(kind)[0], limit) for item in value)
    if kind is bool:
        return _choice(name, value, (True, False))
    if kind is int:
        return _whole(name, value, limit)
    if kind is float:
        return _real(name, value, limit)
    if kind in (str, Path):
        return _text(name, value, kind)
    raise TypeError(f"{name}: a field of type {kind} has no check")


def _choice(name: str, value: Any, choices: tuple[Any, ...]) -> Any:
    if type(value) not in {type(choice) for choice in choices} or value not in choices:
        known = ", ".join(str(choice) for choice in choices)
        raise ValueError(f"{name} = {shorten(value)} is unknown; use one of {known}")
    return value


def _whole(name: str, value: Any, limit: Within | None) -> int:
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or (limit is not None and number not in limit):
        raise ValueError(f"{name} = {shorten(value)} must be a whole number{_said(limit)}")
    return number


def _real(name: str, value: Any, limit: Within | None) -> float:
    # compared as they are: 10**400 is no float, but it is too large
    good = isinstance(value, Real) and not isinstance(value, bool)
    if not good or not (-math.inf < value < math.inf) or (limit and value not in limit):
        raise ValueError(f"{name} = {shorten(value)} must be a number{_said(limit)}")
    return float(value)


def _text(name: str, value: Any, kind: type) -> Any:
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(text, str) or not text or "\0" in text or len(text) > LONGEST_TEXT:
        raise ValueError(
            f"{name} = {shorten(value)} must be text of 1 to {LONGEST_TEXT:,} characters"
        )
    return value if isinstance(value, kind) else kind(text)


def _said(limit: Within | None) -> str:
    return "" if limit is None else f" {limit}"


def _digits(number: float) -> str:
    return f"{number:,}" if isinstance(number, int) else f"{number:g}"
