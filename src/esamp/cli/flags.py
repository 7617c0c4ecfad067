"""Command-line flags derived from `Options` classes: name, type, help, range and default come from the field.

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


@dataclass(frozen=True)
class FlagGroup:
    """Where flags come from and under which title the help page has them.

    `options` is one options class, or several by name, of which `choose` picks one by the options of the groups before
    it. The flags of all are offered; one that the chosen class does not have is refused when it is given.
    """

    panel: str
    options: type[Options] | Mapping[str, type[Options]]
    choose: Callable[[Mapping[str, Options]], str] = field(default=lambda _: "")
    kind: str = ""
    """what the names are, for messages and for flags whose name is taken: ``method``"""
    combined: Callable[[str], type[Options]] | None = None
    """the options class of several names joined by ``+``, if they can be joined"""

    @property
    def classes(self) -> Mapping[str, type[Options]]:
        """The options classes by name; a single one has the name ''."""
        return self.options if isinstance(self.options, Mapping) else {"": self.options}

    def find(self, name: str) -> type[Options]:
        """The options class called `name`.

        Raises:
            OptionError: there is none.
        """
        if self.combined is not None and name not in self.classes:
            return self.combined(name)
        if name not in self.classes:
            raise OptionError(f"unknown {self.kind} {name!r}: choose from {', '.join(self.classes)}")
        return self.classes[name]


@dataclass(frozen=True)
class Flag:
    """One flag: the function parameter that carries it and the field that it sets in the classes that have it."""

    parameter: str
    name: str
    owners: tuple[str, ...]
    info: FieldInfo

    @property
    def spelling(self) -> str:
        """``--top-k``; a name of one letter gives ``-n``."""
        return f"-{self.parameter}" if len(self.parameter) == 1 else f"--{self.parameter.replace('_', '-')}"


def with_flags(**groups: FlagGroup) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Replace the parameters named in `groups` by the flags of their options, and hand over the parsed options.

    A flag that was not given is left to the options class, so that presets and defaults apply.
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
    """The group's flags, each name once. A name that the command already has gets the group's kind before it."""
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
    """What a flag's text means for a field: number, choice, tuple or JSON; the text itself where it is none of these.

    Nothing is refused here. The options class does that, in the same words as everywhere else.
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
    """A typer option that is None unless given. Everything but a switch arrives as text; `value_of` reads it."""
    kinds = _kinds(flag.info.annotation)
    annotation: Any = str | None
    spelling, metavar = flag.spelling, _metavar(kinds)
    if kinds == (bool,):
        annotation, metavar = bool | None, ""
        extra = flag.info.json_schema_extra
        off = extra.get("off") if isinstance(extra, dict) else None  # a field may name the flag that turns it off
        spelling = f"{flag.spelling}/--{off or 'no-' + flag.parameter.replace('_', '-')}"
    elif get_origin(kinds[0]) in (tuple, list):
        annotation = list[str] | None
    option = typer.Option(spelling, help=_help(flag.info), metavar=metavar, show_default=False, rich_help_panel=panel)
    return inspect.Parameter(
        flag.parameter, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[annotation, option]
    )


def _kinds(annotation: Any) -> tuple[Any, ...]:
    """The types that a field takes, without None."""
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
    elif default is not None and default not in ((), {}):
        details.append(f"default: {default:g}" if isinstance(default, float) else f"default: {default}")
    return " ".join([info.description or "", f"({'; '.join(details)})" if details else ""]).strip()
