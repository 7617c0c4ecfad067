"""The work of `esamp completions`."""

from collections.abc import Mapping, Sequence
from typing import Any

import typer

from esamp.cli import COMMANDS, application
from esamp.methods import registry

SCRIPTS: Mapping[str, str] = {
    "bash": """_esamp() {
    local IFS=$'\\n'
    COMPREPLY=( $(esamp completions bash -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null) )
}
complete -o default -F _esamp esamp""",
    "zsh": """#compdef esamp
_esamp() {
    local -a found
    found=(${(f)"$(esamp completions zsh -- "${(@)words[2,CURRENT]}" 2>/dev/null)"})
    if (( $#found )); then compadd -a found; else _files; fi
}
compdef _esamp esamp""",
    "fish": "complete -c esamp -a '(esamp completions fish -- (commandline -opc)[2..] (commandline -ct) 2>/dev/null)'",
}
"""What each shell evaluates. Where there is no candidate, the shell completes names of files."""
METHOD_FLAGS = frozenset({"--method", "--help-method", "--methods", "--against", "--over"})
"""Flags whose value is the name of a method."""


def candidates(words: Sequence[str]) -> list[str]:
    """What the last of `words`, the words after ``esamp``, may become; nothing where a file may be meant."""
    *before, last = words
    return [each for each in _possible(before, last) if each.startswith(last)]


def _possible(before: Sequence[str], last: str) -> list[str]:
    names = [word for word in before if not word.startswith("-")]
    if not names:
        return [*COMMANDS, "--help", "--version"]
    if names == ["completions"]:
        return list(SCRIPTS)
    command: Any = typer.main.get_command(application(names[0]))
    for name in names[: 2 if names[0] == "study" else 1]:
        command = command.commands.get(name)
        if command is None:
            return []
    if isinstance(command, typer.core.TyperGroup):
        return [*command.commands, "--help"]
    previous = before[-1]
    if previous in METHOD_FLAGS or (names[0] == "methods" and not last.startswith("-")):
        return list(registry.names())
    if previous.startswith("-") and (values := _values(command, previous)) is not None:
        return values
    if not last.startswith("-"):
        return []
    return [flag for each in command.params for flag in (*each.opts, *each.secondary_opts) if flag[:1] == "-"] + [
        "--help"
    ]


def _values(command: Any, flag: str) -> list[str] | None:
    """The values of a flag, as far as its help page lists them; None if it has no value."""
    for parameter in command.params:
        if flag in parameter.opts and not parameter.is_flag:
            choices = parameter.metavar or ""
            return choices.split("|") if "|" in choices else []
    return None
