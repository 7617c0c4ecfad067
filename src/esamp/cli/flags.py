"""Command-line flags derived from `Options` classes; name, type, help, range and default come from the fields.

`with_flags` gives a command one parameter per options object and turns it into flags:

    @with_flags(sampling=FlagGroup("Sampler", Sampling))
    def command(prompt: str, sampling: Sampling) -> None: ...       # esamp command --temperature 0.7 PROMPT
"""

import functools
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from esamp.errors import OptionError
from esamp.options import Options, allowed
from esamp.quoting import did_you_mean


@dataclass(frozen=True)
class FlagGroup:
    """A group of flags with a title on the help page.

    `options` is one options class, or several by name. Of several, `choose` picks one from the options of the groups
    before it. The flags of all classes are accepted; a flag that the chosen class does not have is an error.
    """

    panel: str
    options: type[Options] | Mapping[str, type[Options]]
    choose: Callable[[Mapping[str, Options]], str] = field(default=lambda _: "")
    kind: str = ""
    """what the names name, such as ``method``; used in messages, and as a prefix of flags whose name is taken"""
    combined: Callable[[str], type[Options]] | None = None
    """returns the options class of several names joined by ``+``; None if names cannot be joined"""

    @property
    def classes(self) -> Mapping[str, type[Options]]:
        """The options classes by name; a single class has the name ''."""
        return self.options if isinstance(self.options, Mapping) else {"": self.options}

    def find(self, name: str) -> type[Options]:
        """The options class called `name`.

        Raises:
            OptionError: there is no such class.
        """
        if self.combined is not None and name not in self.classes:
            return self.combined(name)
        if name not in self.classes:
            close = did_you_mean(name, self.classes)
            raise OptionError(f"unknown {self.kind} {name!r}{close}: choose from {', '.join(self.classes)}")
        return self.classes[name]


@dataclass(frozen=True)
class Flag:
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


def with_flags(**groups: FlagGroup) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorator of a command: its parameters named in `groups` become flags; it is called with the parsed options.

    The options class sees only flags that were given, so that its presets and defaults apply.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        parameters = dict(inspect.signature(function, eval_str=True).parameters)
        for name in groups:
            del parameters[name]
        flags: dict[str, list[Flag]] = {}
        for name, group in groups.items():
            flags[name] = _flags(group, set(parameters))
            parameters |= {flag.parameter: _parameter(flag, group.panel) for flag in flags[name]}

        @functools.wraps(function)
        def command(**given: Any) -> None:
            parsed: dict[str, Options] = {}
            for name, group in groups.items():
                values = {flag.parameter: given.pop(flag.parameter) for flag in flags[name]}
                parsed[name] = _parse(group, flags[name], values, parsed)
            function(**given, **parsed)

        signature = inspect.Signature([each.replace(kind=each.KEYWORD_ONLY) for each in parameters.values()])
        command.__signature__ = signature  # type: ignore[attr-defined]
        return command

    return decorate


def _flags(group: FlagGroup, taken: set[str]) -> list[Flag]:
    """The flags of a group, each name once. A name that the command already has gets the group's kind as a prefix."""
    owners: dict[str, list[str]] = {}
    infos: dict[str, FieldInfo] = {}
    for owner, cls in group.classes.items():
        for name, info in cls.model_fields.items():
            owners.setdefault(name, []).append(owner)
            infos.setdefault(name, info)
    return [
        Flag(f"{group.kind}_{name}" if name in taken else name, name, tuple(owners[name]), info)
        for name, info in infos.items()
    ]


def _parse(group: FlagGroup, flags: list[Flag], given: Mapping[str, Any], parsed: Mapping[str, Options]) -> Options:
    chosen = group.choose(parsed)
    cls, values = group.find(chosen), {}
    for flag in flags:
        value = given[flag.parameter]
        if value is None:
            continue
        if not set(chosen.split("+")) & set(flag.owners):
            raise OptionError(
                f"{flag.spelling} is no option of {group.kind} {chosen!r}: it belongs to {', '.join(flag.owners)}"
            )
        values[flag.name] = value_of(cls.model_fields[flag.name].annotation, value)
    try:
        return cls.parse(values)
    except OptionError as error:
        raise OptionError(f"{group.kind} {chosen!r}: {error}" if group.kind else str(error)) from None


def value_of(annotation: Any, given: Any) -> Any:
    """The text of a flag converted for a field: to a number, choice, tuple or JSON value, or unchanged.

    A text that cannot be converted is returned unchanged; the options class then raises the error.
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if isinstance(given, list):
        return tuple(value_of(arguments[0] if arguments else str, each) for each in given)
    if origin is Annotated:
        return value_of(arguments[0], given)
    if origin in (Union, UnionType):
        converted = (value_of(each, given) for each in arguments)
        return next((value for value in converted if not isinstance(value, str)), given)
    if origin is Literal:
        return next((choice for choice in arguments if str(choice) == given), given)
    if origin is dict:
        try:
            return json.loads(given)
        except ValueError:
            return given
    if annotation in (int, float):
        try:
            return annotation(given)
        except ValueError:
            return given
    return given


def _parameter(flag: Flag, panel: str) -> inspect.Parameter:
    """A typer option that is None unless it is given. All but switches are texts, which `value_of` converts."""
    kinds = _kinds(flag.info.annotation)
    annotation: Any = str | None
    spelling, metavar = flag.spelling, _metavar(kinds)
    if kinds == (bool,):
        annotation, metavar = bool | None, ""
        extra = flag.info.json_schema_extra
        off = extra.get("off") if isinstance(extra, dict) else None  # a field may name the flag that switches it off
        spelling = f"{flag.spelling}/--{off or 'no-' + flag.parameter.replace('_', '-')}"
    elif get_origin(kinds[0]) in (tuple, list):
        annotation = list[str] | None
    option = typer.Option(spelling, help=_help(flag.info), metavar=metavar, show_default=False, rich_help_panel=panel)
    return inspect.Parameter(
        flag.parameter, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[annotation, option]
    )


def _kinds(annotation: Any) -> tuple[Any, ...]:
    """The types of a field, without None."""
    parts = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    return tuple(part for part in parts if part is not type(None))


def _metavar(kinds: tuple[Any, ...]) -> str:
    if get_origin(kinds[0]) is Literal:
        return "|".join(str(choice) for choice in get_args(kinds[0]))
    if get_origin(kinds[0]) is dict:
        return "JSON"
    return {int: "N", float: "X"}.get(kinds[0], "TEXT")


def _help(info: FieldInfo) -> str:
    """The field's description, what it accepts and its default, on one line."""
    kind, details = _kinds(info.annotation)[0], []
    if get_origin(kind) in (tuple, list):
        details.append("may be given several times")
    elif kind in (int, float):
        details.append(allowed(info))
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
