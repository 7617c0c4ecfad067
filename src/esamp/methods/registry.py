"""Decoding methods by name. Any installed package can add methods to the entry point group ``esamp.methods``."""

from functools import lru_cache

from esamp import plugins
from esamp.errors import EsampError, OptionError
from esamp.methods.base import Method
from esamp.options import Options
from esamp.quoting import shown

GROUP = "esamp.methods"
OPTIONS = "esamp.method_options"
"""The entry point group in which a package may name the options class of a method, under the method's name."""
MAX_NAME_LENGTH = 400
"""Characters of a name at most. A name may come from an untrusted request."""
MAX_PARTS = 16
"""Methods joined by ``+`` at most."""
TEXTS = ("name", "summary", "citation", "kind")
"""The attributes of a method that lists show."""


def names() -> tuple[str, ...]:
    """The names of all installed methods, sorted. Imports none of them."""
    return tuple(plugins.entries(GROUP))


@lru_cache(maxsize=256)  # combining methods takes milliseconds, and every request looks up its method
def get(name: str) -> type[Method]:
    """The method called `name`, or several joined by ``+``, as in ``esamp+fire`` (see `esamp.methods.stack`).

    The name may be untrusted, so that it is checked in full before any method is imported.

    Raises:
        OptionError: no such method is installed, the entry point does not lead to a `Method`, or they do not combine.
    """
    if len(name) > MAX_NAME_LENGTH:
        raise OptionError(f"method {shown(name)} has {len(name):,} characters: names have at most {MAX_NAME_LENGTH}")
    parts = name.split("+")
    if len(parts) > MAX_PARTS:
        raise OptionError(f"method {shown(name)} joins {len(parts)} methods: at most {MAX_PARTS} go together")
    if len(parts) > len(set(parts)):
        raise OptionError(f"method {shown(name)} names one method twice")
    for part_name in parts:
        if part_name not in plugins.entries(GROUP):
            return part(part_name)  # raises an error that lists the installed methods
    from esamp.methods.stack import combine  # imports torch

    return combine([part(part_name) for part_name in parts])


def part(name: str) -> type[Method]:
    """The single method called `name`, as its package defines it.

    Raises:
        OptionError: no such method is installed, its package fails, or the entry point does not lead to a `Method`.
    """
    method = plugins.load(GROUP, name, Method, "method")
    declared = {attribute: value for cls in reversed(method.__mro__) for attribute, value in vars(cls).items()}
    missing = [attribute for attribute in TEXTS if not isinstance(declared.get(attribute), str)]
    options = declared.get("options")
    if missing or not (isinstance(options, type) and issubclass(options, Options)):
        raise OptionError(
            f"method {name!r}: {method.__name__} declares no {(missing or ['options'])[0]}; ask the package that "
            "installed it"
        )
    return method


def option_classes() -> dict[str, type[Options]]:
    """The options class of each method by name, from which the flags of commands are derived.

    A method is imported only if its package names no options class in the group `OPTIONS`, because methods import
    torch, which takes seconds. Methods that cannot be imported are left out.
    """
    classes = {}
    for name in names():
        try:
            classes[name] = _options_class(name)
        except EsampError:  # `get` reports the reason
            continue
    return classes


def _options_class(name: str) -> type[Options]:
    method, own = plugins.entries(GROUP)[name], plugins.entries(OPTIONS).get(name)
    same_package = own is not None and own.module.split(".")[0] == method.module.split(".")[0]
    return plugins.load(OPTIONS, name, Options, "method") if same_package else part(name).options


def available() -> dict[str, type[Method]]:
    """All methods that can be used by name, without combinations."""
    failed = broken()
    return {name: part(name) for name in names() if name not in failed}


def broken() -> dict[str, str]:
    """By name, the reason why an installed method cannot be used. Imports all methods."""
    return plugins.failures(names(), part)
