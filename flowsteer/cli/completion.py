"""`flowsteer completion bash | zsh | fish`: what completes commands and flags in a shell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

SHELLS = ("bash", "zsh", "fish")

_BASH = """\
_flowsteer() {{
  local word="${{COMP_WORDS[COMP_CWORD]}}" command="${{COMP_WORDS[1]}} ${{COMP_WORDS[2]}}"
  local choices="{commands}"
  case "$command " in
{cases}
  esac
  COMPREPLY=($(compgen -W "$choices" -- "$word"))
  [[ ${{#COMPREPLY[@]}} -gt 0 ]] || COMPREPLY=($(compgen -f -- "$word"))
}}
complete -F _flowsteer flowsteer"""


def completion(words: Sequence[str], commands: Mapping[str, Any]) -> str:
    """A script for the shell that the words name, to be evaluated by it.

    Raises:
        ValueError: if they name none.
    """
    if len(words) != 1 or words[0] not in SHELLS:
        asked = " ".join(words) or "nothing"
        raise ValueError(f"completion for {asked!r} is unknown; use one of {', '.join(SHELLS)}")
    flags = {name: _flags(entry.load()) for name, entry in commands.items()}
    if words[0] == "fish":
        return _fish(flags)
    script = _bash(flags)
    return script if words[0] == "bash" else f"autoload -U bashcompinit && bashcompinit\n{script}"


def _flags(command: type) -> list[str]:
    """The flags of a command, without what is typed with none."""
    kept = [item.name for item in fields(command) if not str(item.type).startswith("Positional")]
    return ["--" + {"from_file": "from"}.get(name, name) for name in [*kept, "help"]]


def _bash(flags: Mapping[str, list[str]]) -> str:
    first = dict.fromkeys([*(name.split()[0] for name in flags), "help", "completion"])
    cases = []
    for group in dict.fromkeys(name.split()[0] for name in flags if " " in name):
        seconds = [name.split()[1] for name in flags if name.startswith(f"{group} ")]
        cases.append((f'"{group} "*', " ".join(seconds)))
    # the more exact pattern first: a case ends at the first that fits
    cases = [(f'"{name} "*', " ".join(words)) for name, words in flags.items()] + cases
    lines = [f'    {pattern}) choices="{words}" ;;' for pattern, words in cases]
    return _BASH.format(commands=" ".join(first), cases="\n".join(lines))


def _fish(flags: Mapping[str, list[str]]) -> str:
    lines = ["complete -c flowsteer -n __fish_use_subcommand -f -a 'help completion'"]
    for name, words in flags.items():
        head, _, second = name.partition(" ")
        seen = f"__fish_seen_subcommand_from {head}"
        lines.append(f"complete -c flowsteer -n __fish_use_subcommand -f -a {head}")
        if second:
            lines.append(f"complete -c flowsteer -n '{seen}' -f -a {second}")
            seen += f"; and __fish_seen_subcommand_from {second}"
        lines += [f"complete -c flowsteer -n '{seen}' -l {word[2:]}" for word in words]
    return "\n".join(lines)
