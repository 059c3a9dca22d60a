"""Links into the app: prompt, seed, noises, columns and screen in the query of its address."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import parse_qs

from flowsteer.app.networks import Choices
from flowsteer.app.requests import MOST_NOISES
from flowsteer.comparing import Column
from flowsteer.validation import check_prompt, check_seed, check_whole_number

SCREENS = {
    "compare": "Compare",
    "trajectory": "Trajectory",
    "scheduler": "Scheduler",
    "blind": "Blind test",
    "results": "Results",
    "about": "About",
}
MOST_CHARACTERS = 8000
Value = TypeVar("Value")


@dataclass(frozen=True)
class Link:
    """What a link says; None for what it leaves out or says wrongly."""

    prompt: str | None = None
    seed: int | None = None
    noises: int | None = None
    columns: list[Column] | None = None
    screen: str | None = None

    @classmethod
    def read(cls, query: Any, choices: Choices) -> Link:
        """Read the query of an address, such as "?prompt=a+koala&seed=3"."""
        if not isinstance(query, str) or len(query) > MOST_CHARACTERS:
            return cls()
        try:
            values = parse_qs(query.lstrip("?"), max_num_fields=20)
        except ValueError:
            return cls()

        def take(name: str, check: Callable[[str], Value]) -> Value | None:
            try:
                return check(values[name][0]) if name in values else None
            except ValueError:
                return None

        return cls(
            prompt=take("prompt", check_prompt),
            seed=take("seed", lambda text: check_seed(int(text))),
            noises=take("noises", lambda t: check_whole_number("noises", int(t), 1, MOST_NOISES)),
            columns=take("columns", choices.parse),
            screen=take("screen", _screen),
        )


def _screen(text: str) -> str:
    if text not in SCREENS:
        raise ValueError(f"screen = {text!r} is unknown")
    return text
