"""Command-line flags derived from `Options` classes; name, type, help, range and default come from the fields.

`with_flags` gives a command one parameter per options object and turns it into flags:

    @with_flags(sampling=FlagGroup("Sampler", Sampling))
    def command(prompt: str, sampling: Sampling) -> None: ...       # esamp command --temperature 0.7 PROMPT
"""

import functools
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from esamp.cli.flag import Flag, kinds
from esamp.cli.help import UNLISTED, print_section
from esamp.errors import OptionError
from esamp.options import Options
from esamp.quoting import did_you_mean

HELP_METHOD = "help_method"
"""The parameter of ``--help-method``."""


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
    hint: str = ""
    """for ``--help-method``: which names there are"""
    by_method: bool = False
    """leave the flags out of the help page; ``--help-method NAME`` lists those of one method instead"""

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
            panel = UNLISTED if group.by_method else group.panel
            parameters |= {flag.parameter: _parameter(flag, panel) for flag in flags[name]}
            if group.by_method:
                parameters[HELP_METHOD] = _help_method(group, flags[name])

        @functools.wraps(function)
        def command(**given: Any) -> None:
            given.pop(HELP_METHOD, None)
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


def flags_of(command: Callable[..., None], names: str) -> list[Flag]:
    """The flags of a command that belong to a method.

    Args:
        command: a command with a group of flags whose classes are methods' options.
        names: the method, or several joined by ``+``.
    """
    chosen = set(names.split("+"))
    annotations = (parameter.annotation for parameter in inspect.signature(command).parameters.values())
    found = [each for annotation in annotations for each in get_args(annotation)[1:] if isinstance(each, Flag)]
    return [flag for flag in found if chosen & set(flag.owners)]


def _parameter(flag: Flag, panel: str) -> inspect.Parameter:
    """A typer option that is None unless it is given. All but switches are texts, which `value_of` converts."""
    annotation: Any = str | None
    if flag.is_switch:
        annotation = bool | None
    elif get_origin(kinds(flag.info.annotation)[0]) in (tuple, list):
        annotation = list[str] | None
    option = typer.Option(
        flag.declaration,
        help=flag.help,
        metavar=flag.metavar,
        show_default=False,
        rich_help_panel=panel,
    )
    return inspect.Parameter(
        flag.parameter, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[annotation, option, flag]
    )


def _help_method(group: FlagGroup, flags: Sequence[Flag]) -> inspect.Parameter:
    """The flag ``--help-method NAME``, which prints the flags of one method of `group`."""

    def show(context: typer.Context, name: str | None) -> None:
        if name is None:
            return
        if group.combined is None and name not in group.classes:
            raise OptionError(f"--help-method {name}: {group.hint}")
        group.find(name)
        chosen = set(name.split("+"))
        records = [flag.record for flag in flags if chosen & set(flag.owners)]
        if records:
            print_section(context, f"Flags of {name}", records)
        else:
            print(f"{name} has no flags of its own.")
        raise typer.Exit

    option = typer.Option(
        "--help-method",
        callback=show,
        is_eager=True,
        help=f"list the flags of a method and exit; {group.hint}",
        metavar="NAME",
        show_default=False,
        rich_help_panel=group.panel,
    )
    return inspect.Parameter(
        HELP_METHOD, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[str | None, option]
    )
