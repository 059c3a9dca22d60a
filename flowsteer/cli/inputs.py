"""What several commands take: numbers judged by our own checks, prompts, a student's name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from flowsteer.untrusted import name_of, read_lines
from flowsteer.validation import check_prompt, check_prompts

AUTO = "auto"
DEFAULT_STUDENT = "flowsteer"
MOST_PROMPT_BYTES = 200_000_000  # a million prompts


def _number(words: list[str]) -> int | float | str:
    """A number as typed; what is none stays text, for the check whose message names the limit."""
    for kind in (int, float):
        try:
            return kind(words[0])
        except ValueError:
            continue
    return words[0]


_PARSER = {
    "nargs": 1,
    "instance_from_str": _number,
    "is_instance": lambda value: isinstance(value, (int, float)),
    "str_from_instance": lambda value: [str(value)],
}
WholeNumber = Annotated[
    int, tyro.constructors.PrimitiveConstructorSpec(metavar="INT", **_PARSER)  # type: ignore[arg-type]
]
"""An int whose range is checked after parsing, so that "3.5" gets the same message as 0."""
Number = Annotated[
    float,
    tyro.constructors.PrimitiveConstructorSpec(metavar="FLOAT", **_PARSER),  # type: ignore[arg-type]
]
"""A float checked after parsing."""


def collect_prompts(typed: Sequence[str], file: Path | None) -> list[str]:
    """The prompts typed, then those of a file with one prompt a line; blank lines are skipped.

    Raises:
        ValueError: if there is none, one is bad, or the file is not readable as UTF-8 text.
    """
    prompts = list(typed)
    if file is not None:
        prompts += read_prompts(file)
    if not prompts:
        raise ValueError("no prompt given; type one in quotes or use --prompts FILE")
    return check_prompts(prompts)


def read_prompts(file: Path) -> list[str]:
    """The lines of a UTF-8 file that are not blank, each checked as a prompt.

    Raises:
        ValueError: if it is not readable, holds none, or one is bad; naming its line.
    """
    prompts = []
    lines = read_lines(file, "a file of prompts for --prompts", MOST_PROMPT_BYTES)
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                prompts.append(check_prompt(line))
            except ValueError as error:
                where = f"--prompts {name_of(file)}, line {number:,}"
                raise ValueError(f"{where}: {error}") from error
    if not prompts:
        raise ValueError(f"--prompts {name_of(file)} has no prompt; write one a line")
    return prompts


def choose_student(student: str, model: str) -> str:
    """The student's name or path; "auto" means ours for the emoji model and none for others."""
    if student != AUTO:
        return student
    return DEFAULT_STUDENT if model == "emoji" else "none"


def check_output_dir(folder: Path) -> Path:
    """A folder that exists or can be made later.

    Raises:
        ValueError: if a file is in the way.
    """
    for path in (folder, *folder.parents):
        if path.exists() and not path.is_dir():
            raise ValueError(f"--output_dir {folder}: {path} is a file; choose another folder")
    return folder
