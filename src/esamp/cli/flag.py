"""`Flag`: one flag of a command, derived from a field of an options class: its spelling, its value and its help."""

from dataclasses import dataclass
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from esamp.options import allowed

LONGEST_METAVAR = 16
"""Limit on the characters of the choices that stand behind a flag; longer ones stand in its description."""


@dataclass(frozen=True)
class Flag:
    """One flag."""

    parameter: str
    """parameter of the command's function"""
    name: str
    """field of the options classes"""
    owners: tuple[str, ...]
    """names of the classes that have the field"""
    info: FieldInfo

    @property
    def spelling(self) -> str:
        """The flag as it is written: ``--top-k``, or ``-n`` for a name of one letter."""
        return f"-{self.parameter}" if len(self.parameter) == 1 else f"--{self.parameter.replace('_', '-')}"

    @property
    def declaration(self) -> str:
        """The flag, for a switch also the one that switches it off: ``--gate/--no-gate``."""
        if not self.is_switch:
            return self.spelling
        extra = self.info.json_schema_extra
        off = extra.get("off") if isinstance(extra, dict) else None  # a field may name the flag that switches it off
        return f"{self.spelling}/--{off or 'no-' + self.parameter.replace('_', '-')}"

    @property
    def is_switch(self) -> bool:
        """Whether the flag has no value."""
        return kinds(self.info.annotation) == (bool,)

    @property
    def record(self) -> tuple[str, str]:
        """The flag with its value, and its help: a line of a help page."""
        spelling = self.declaration.replace("/", " / ") if self.is_switch else f"{self.spelling} {self.metavar}"
        return spelling, self.help

    @property
    def metavar(self) -> str:
        """What stands for the value on a help page: ``X``, or the choices if they are short; empty for a switch."""
        return "" if self.is_switch else _metavar(self.info)

    @property
    def help(self) -> str:
        """The field's description, what it accepts and its default, on one line."""
        info, kind, details = self.info, kinds(self.info.annotation)[0], []
        if get_origin(kind) in (tuple, list):
            details.append("may be given several times")
        elif kind in (int, float):
            details.extend(filter(None, [_range(info)]))
        elif get_origin(kind) is Literal and self.metavar == "NAME":
            details.append(", ".join(str(choice) for choice in get_args(kind)))
        default = info.get_default(call_default_factory=True)
        if info.is_required():
            details.append("required")
        elif isinstance(default, bool):
            details.append(f"default: {'yes' if default else 'no'}")
        elif isinstance(default, float):
            details.append(f"default: {default:g}")
        elif isinstance(default, tuple | list):
            details.extend([f"default: {', '.join(map(str, default))}"] if default else [])
        elif default not in (None, "", {}):
            details.append(f"default: {default}")
        return " ".join([info.description or "", f"({'; '.join(details)})" if details else ""]).strip()


def kinds(annotation: Any) -> tuple[Any, ...]:
    """The types of a field, without None."""
    parts = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    return tuple(part for part in parts if part is not type(None))


def _metavar(info: FieldInfo) -> str:
    kind = kinds(info.annotation)[0]
    if get_origin(kind) is Literal:
        choices = "|".join(str(choice) for choice in get_args(kind))
        return choices if len(choices) <= LONGEST_METAVAR else "NAME"
    if get_origin(kind) is dict:
        return "JSON"
    return {int: "N", float: "X"}.get(kind, "TEXT")


def _range(info: FieldInfo) -> str:
    """The range of a number in few words: ``0 to 16``, ``at least 1``. Limits of 32 or 64 bits are left out."""
    text = allowed(info)
    for kind in ("a whole number", "a number"):
        text = text.removeprefix(kind)
    text = text.removeprefix(", ").removeprefix(" from ")
    return ", ".join(part for part in text.split(", ") if not part.startswith("below 2**"))
