"""What several commands take: numbers judged by our own checks, prompts, a student's name."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from flowsteer.untrusted import name_of, read_lines
from flowsteer.validation import PromptWarning, check_prompt, check_prompts, shorten

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
    """The prompts typed, then those of a file; words without quotes are warned of.

    Raises:
        ValueError: if there is none, one is bad, or the file is not readable as UTF-8 text.
    """
    prompts = list(typed)
    if len(prompts) > 1 and not any(len(prompt.split()) > 1 for prompt in prompts):
        warnings.warn(
            f"{len(prompts)} prompts of one word each; if they are one prompt, quote it:"
            f" {shorten(' '.join(prompts), 60)}",
            PromptWarning,
            stacklevel=2,
        )
    if file is not None:
        prompts += read_prompts(file)
    if not prompts:
        raise ValueError("no prompt given; type one in quotes or use --prompts FILE")
    return check_prompts(prompts)


def read_prompts(file: Path) -> list[str]:
    """The lines of a UTF-8 file, each checked as a prompt; not blank ones, nor `# comments`.

    Raises:
        ValueError: if it is not readable, holds none, or one is bad; naming its line.
    """
    prompts = []
    lines = read_lines(file, "a file of prompts for --prompts", MOST_PROMPT_BYTES)
    for number, line in enumerate(lines, start=1):
        if line.strip() and not line.lstrip().startswith("#"):
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


def check_output_dir(folder: str | os.PathLike[str], flag: str = "--output_dir") -> Path:
    """A folder that files can be written into; it is made to find out, and removed again.

    Args:
        folder: there already or not.
        flag: that named it, for messages.

    Raises:
        ValueError: if it has no name, cannot be made, or nothing can be written there.
    """
    if not os.fspath(folder):
        raise ValueError(f"{flag} is empty; name a folder, or give . for the present one")
    path, made = Path(folder), []
    try:
        for part in reversed((path, *path.parents)):
            if not part.is_dir():
                part.mkdir()
                made.append(part)
        with tempfile.TemporaryFile(dir=path):
            pass
    except (OSError, ValueError) as error:  # a name with a zero byte is a ValueError
        why = getattr(error, "strerror", None) or error
        if stranger := next((p for p in (path, *path.parents) if _is_file(p)), None):
            why = f"{stranger} is a file"
        raise ValueError(
            f"{flag} {shorten(str(folder), 200)}: {why}; choose another folder"
        ) from error
    finally:
        for part in reversed(made):
            part.rmdir()
    return path


def _is_file(path: Path) -> bool:
    """Whether something that is no folder lies there, be it a link to nowhere."""
    try:
        return os.path.lexists(path) and not path.is_dir()
    except (OSError, ValueError):
        return False


def check_output_file(path: Path | None) -> None:
    """Make sure that the file of `--json` can be written, None being none.

    Raises:
        ValueError: if it is a folder, or its own cannot be written into.
    """
    if path is None:
        return
    check_output_dir(path.parent, "--json")
    try:
        folder = path.is_dir()
    except OSError as error:
        raise ValueError(f"--json {shorten(str(path), 200)}: {error.strerror}") from error
    if folder:
        raise ValueError(f"--json {str(path)!r} is a folder; name a file in it")


def precision_of(pipe: Any) -> str:
    """Of a pipeline's network, such as float32."""
    return str(pipe.transformer.dtype).removeprefix("torch.")
