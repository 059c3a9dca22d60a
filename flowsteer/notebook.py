"""The one switch of the notebooks: `FLOWSTEER_NOTEBOOK=quick` runs the same cells on less."""

from __future__ import annotations

import os

VARIABLE = "FLOWSTEER_NOTEBOOK"


def is_quick() -> bool:
    """Whether the environment asks for small numbers, as the tests do; unset means no.

    Raises:
        ValueError: if the variable is set to anything but "quick" or "full".
    """
    value = os.environ.get(VARIABLE, "full")
    if value not in ("quick", "full"):
        raise ValueError(f"{VARIABLE} = {value!r} is unknown; use quick or full, or leave it unset")
    return value == "quick"
