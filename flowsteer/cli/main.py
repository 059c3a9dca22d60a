"""Find the command, parse its flags, run it, and turn errors into one line and an exit code."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import re
import signal
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

import flowsteer
from flowsteer.validation import PromptWarning

BAD_INPUT = 2
"""Exit code for what the user can put right by typing something else."""

SYNONYMS = (
    ("num_inference_steps", "steps"),
    ("model", "pretrained_model_name_or_path"),
    ("scheduler", "grid"),
)
"""Flags that mean the same; a command documents one of each row and takes them all."""

_STYLES = re.compile(r"\x1b\[[0-9;]*m")


class Runnable(Protocol):
    """A parsed command: a frozen dataclass whose fields are its flags."""

    def run(self) -> None:
        """Do it, writing results to stdout or files and progress to stderr."""


@dataclass(frozen=True)
class Entry:
    """Where a command's dataclass lives; imported only when it is asked for."""

    module: str
    name: str
    summary: str

    def load(self) -> type:
        """The dataclass."""
        return getattr(importlib.import_module(f"flowsteer.cli.{self.module}"), self.name)


COMMANDS = {
    "generate": Entry("generate", "Generate", "draw pictures from prompts"),
    "compare": Entry("compare", "Compare", "teacher and student side by side, from one noise"),
    "schedule": Entry("schedule", "Schedule", "the stock and the rectified time grid in numbers"),
    "bench": Entry("bench", "Bench", "time student, teacher, imports and the app here"),
    "distill": Entry("distill", "Distill", "teach a few-step student"),
    "evaluate": Entry("evaluate", "Evaluate", "measure a student beside its teacher"),
    "reproduce": Entry("reproduce", "Reproduce", "mismatch, scheduler and ablation of the paper"),
    "emoji data": Entry("emoji", "EmojiData", "build the emoji art from its npm packages"),
    "emoji autoencoder": Entry("emoji_training", "EmojiAutoencoder", "train the autoencoder"),
    "emoji report": Entry("evaluate", "EmojiReport", "measure the teacher and its few-step rows"),
    "emoji teacher": Entry("emoji_training", "EmojiTeacher", "train the 28-step teacher"),
    "emoji detector": Entry("emoji", "EmojiDetector", "train the detector behind EmojiEval"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: the words after `flowsteer`; None takes the process's own.

    Returns:
        0; 2 after bad input; 1 when a file cannot be written; 130 after Ctrl-C, 143 after SIGTERM.

    Raises:
        SystemExit: with code 0 after a command's --help.
    """
    words = asked_for_help(list(sys.argv[1:] if argv is None else argv))
    with warnings.catch_warnings():
        _tame_warnings()
        try:
            _run(words)
            sys.stdout.flush()  # a reader that has gone is noticed here, not at the exit
        except ValueError as error:
            return _fail(error, BAD_INPUT)
        except BrokenPipeError:  # `| head` has seen enough
            _silence_stdout()
        except OSError as error:
            return _fail(error, 1)
        except KeyboardInterrupt as stop:  # a run says where it is saved, and what stopped it
            number = getattr(stop, "signal_number", signal.SIGINT)
            return _fail(str(stop) or "interrupted", 128 + number)
        finally:
            _leave_process_group()
    return 0


def _silence_stdout() -> None:
    """Send what is still buffered nowhere, so that the exit does not try to write it."""
    with contextlib.suppress(OSError, ValueError):  # a test's stdout has no number
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(words: list[str]) -> None:
    """Print what was asked for, or run the command."""
    if not words or words[0] in ("-h", "--help"):
        print(overview())
    elif words[0] == "--version":
        print(flowsteer.__version__)
    elif words[0] == "completion":
        from flowsteer.cli.completion import completion

        print(completion(words[1:], COMMANDS))
    elif group := _group(words):
        print(overview(group))
    else:
        parse(words).run()


def asked_for_help(words: list[str]) -> list[str]:
    """`help COMMAND` as `COMMAND --help`."""
    return [*words[1:], "--help"] if words[:1] == ["help"] else words


def _group(words: Sequence[str]) -> str | None:
    """The first word of two-word commands, where nothing but a wish for help follows it."""
    alone = len(words) == 1 or list(words[1:]) in (["-h"], ["--help"], ["help"])
    return next((words[0] for name in COMMANDS if alone and name.startswith(f"{words[0]} ")), None)


def parse(words: Sequence[str]) -> Runnable:
    """The command that the words name, with its flags.

    Raises:
        ValueError: if there is no such command or flag, or a value is not of the flag's kind.
        SystemExit: with code 0 after --help.
    """
    import tyro

    name, rest = split_command(words)
    _check_output_dir_is_named(rest)
    command: Any = COMMANDS[name].load()
    rest = with_its_names(rest, [item.name for item in fields(command)])
    start = command.starting_from(rest) if hasattr(command, "starting_from") else None
    # what a preset switches on can be switched off again: --no_compile
    pairs = () if start is not None else (tyro.conf.FlagCreatePairsOff,)
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(
                command,
                prog=f"flowsteer {name}",
                args=rest,
                default=start,
                use_underscores=True,
                config=(*pairs, tyro.conf.OmitArgPrefixes),
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        message = unboxed(complaint.getvalue()).removeprefix(f"Error parsing {command.__name__}: ")
        raise ValueError(f"{message}; see flowsteer {name} --help") from None


def _check_output_dir_is_named(words: Sequence[str]) -> None:
    """Refuse `--output_dir ""`, which a path could not tell from the present folder."""
    for word, following in zip(words, [*words, None][1:], strict=True):
        flag, equals, value = word.partition("=")
        given = value if equals else following
        if flag.replace("-", "_") == "__output_dir" and given == "":
            raise ValueError("--output_dir is empty; name a folder, or give . for the present one")


def with_its_names(words: Sequence[str], names: Sequence[str]) -> list[str]:
    """The words, flags that a command calls otherwise under the name it has for them."""
    own = {
        other: name
        for group in SYNONYMS
        for name in names
        if name in group
        for other in group
        if other not in names
    }
    renamed = []
    for word in words:
        flag, equals, value = word.partition("=")
        name = own.get(flag[2:].replace("-", "_")) if flag.startswith("--") else None
        renamed.append(word if name is None else f"--{name}{equals}{value}")
    return renamed


def unboxed(text: str) -> str:
    """The message that tyro frames: below the title's rule, above the rule before its help."""
    blocks: list[list[str]] = [[]]
    for line in _STYLES.sub("", text).splitlines():
        line = line.strip("│ ")
        if line.startswith(("╭", "╰")) or (line and not line.strip("─-")):
            blocks.append([])
        else:
            blocks[-1].append(line)
    message = blocks[min(1, len(blocks) - 1)]
    return " ".join(" ".join(message).split()).rstrip(".")


def split_command(words: Sequence[str]) -> tuple[str, list[str]]:
    """The command, of one word or two, and the words after it.

    Raises:
        ValueError: if there is no such command.
    """
    for count in (2, 1):
        name = " ".join(words[:count])
        if name in COMMANDS:
            return name, list(words[count:])
    if group := [name for name in COMMANDS if name.startswith(f"{words[0]} ")]:
        raise ValueError(f"{words[0]} needs a second word; use one of {', '.join(group)}")
    raise ValueError(f"command {words[0]!r} is unknown; use one of {', '.join(COMMANDS)}")


def overview(group: str = "") -> str:
    """What `flowsteer --help` prints, or `flowsteer emoji --help` for the commands of a group."""
    listed = {name: entry for name, entry in COMMANDS.items() if name.startswith(group)}
    width = max(map(len, listed))
    lines = [f"  {name:{width}}  {entry.summary}" for name, entry in listed.items()]
    return "\n".join(
        [
            "usage: flowsteer COMMAND [--help] ...",
            "",
            "Few-step students of flow-matching image models.",
            "",
            *lines,
            "",
            "flowsteer COMMAND --help, or flowsteer help COMMAND, lists a command's flags;",
            "flowsteer completion bash, zsh or fish prints what completes them in your shell.",
        ]
    )


def _tame_warnings() -> None:
    """One line a warning; none for developers of other packages."""
    for library in ("TRANSFORMERS", "DIFFUSERS"):
        # read when they are first imported, which is later than this
        os.environ.setdefault(f"{library}_VERBOSITY", "error")
    warnings.simplefilter("ignore", FutureWarning)
    warnings.simplefilter("ignore", DeprecationWarning)
    warnings.simplefilter("always", PromptWarning)
    warnings.showwarning = _show_warning


def _leave_process_group() -> None:
    """Part from the other processes of `torchrun`: left open, their threads can abort the exit."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def _show_warning(message: Any, *args: Any, **kwargs: Any) -> None:
    from tqdm import tqdm

    # on a line of its own, above a progress bar if there is one
    tqdm.write(f"flowsteer: warning: {' '.join(str(message).split())}", file=sys.stderr)


def _fail(error: object, code: int) -> int:
    print(f"flowsteer: error: {' '.join(str(error).split())}", file=sys.stderr)
    return code
