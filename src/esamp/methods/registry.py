"""Decoding methods by name. Any installed package can add one through the entry point group ``esamp.methods``."""

from functools import lru_cache

from esamp import plugins
from esamp.errors import EsampError, OptionError
from esamp.methods.base import Method
from esamp.options import Options
from esamp.quoting import shown

GROUP = "esamp.methods"
OPTIONS = "esamp.method_options"
"""Group of entry points in which a package may name the options class of a method, under the method's name."""
LONGEST = 400
"""Characters of a name, which may come from a request."""
MOST_PARTS = 16
"""Methods that are joined by ``+``."""
TEXTS = ("name", "summary", "citation", "kind")
"""What lists show of a method."""


def names() -> tuple[str, ...]:
    """Names of all installed methods, sorted, without importing them."""
    return tuple(plugins.entries(GROUP))


@lru_cache(maxsize=256)  # to combine several methods takes milliseconds, and every request asks by name
def get(name: str) -> type[Method]:
    """The method called `name`, or several joined by ``+``, as in ``esamp+fire`` (see `esamp.methods.stack`).

    The name may be a stranger's: it is checked in full before any method is imported.

    Raises:
        OptionError: no such method is installed, the entry point does not lead to a `Method`, or they do not combine.
    """
    if len(name) > LONGEST:
        raise OptionError(f"method {shown(name)} has {len(name):,} characters: names have at most {LONGEST}")
    parts = name.split("+")
    if len(parts) > MOST_PARTS:
        raise OptionError(f"method {shown(name)} joins {len(parts)} methods: at most {MOST_PARTS} go together")
    if len(parts) > len(set(parts)):
        raise OptionError(f"method {shown(name)} names one method twice")
    for each in parts:
        if each not in plugins.entries(GROUP):
            return part(each)  # says what there is
    from esamp.methods.stack import combine  # imports torch

    return combine([part(each) for each in parts])


def part(name: str) -> type[Method]:
    """The one method called `name`, as its package has it.

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
    """The options class of each method by name: what the flags of a command are derived from.

    A method is imported only if its package names no options class in the group `OPTIONS`: methods import torch, which
    takes seconds. Methods that cannot be imported are left out.
    """
    found = {}
    for name in names():
        try:
            found[name] = _options_class(name)
        except EsampError:  # whoever asks for the method is told the reason
            continue
    return found


def _options_class(name: str) -> type[Options]:
    method, own = plugins.entries(GROUP)[name], plugins.entries(OPTIONS).get(name)
    same_package = own is not None and own.module.split(".")[0] == method.module.split(".")[0]
    return plugins.load(OPTIONS, name, Options, "method") if same_package else part(name).options


def available() -> dict[str, type[Method]]:
    """All methods that can be used by name, each as its package has it."""
    failed = broken()
    return {name: part(name) for name in names() if name not in failed}


def broken() -> dict[str, str]:
    """By name, why a method that is installed cannot be used. Imports all of them."""
    return plugins.failures(names(), part)
