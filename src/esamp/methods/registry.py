"""Decoding methods by name. Any installed package can add one through the entry point group ``esamp.methods``."""

from functools import lru_cache
from importlib.metadata import entry_points

from esamp.errors import OptionError
from esamp.methods.base import Method
from esamp.methods.stack import combine

GROUP = "esamp.methods"


def names() -> tuple[str, ...]:
    """Names of all installed methods, sorted, without importing them."""
    return tuple(sorted({point.name for point in entry_points(group=GROUP)}))


@lru_cache(maxsize=256)  # to look through all installed packages takes milliseconds, and requests ask by name
def get(name: str) -> type[Method]:
    """The method called `name`, or several joined by ``+``, as in ``esamp+fire`` (see `esamp.methods.stack`).

    Raises:
        OptionError: no such method is installed, the entry point does not lead to a `Method`, or they do not combine.
    """
    parts = name.split("+")
    if len(parts) > len(set(parts)):  # before any of them is looked for: a request may name one a thousand times
        raise OptionError(f"method {shortened(name)!r} names one method twice")
    return combine([part(each) for each in parts])


def shortened(name: str) -> str:
    """A name for a message, whatever was sent for one."""
    return name if len(name) <= 80 else f"{name[:77]}..."


def part(name: str) -> type[Method]:
    """The one method called `name`, as its package has it.

    Raises:
        OptionError: no such method is installed, or the entry point does not lead to a `Method`.
    """
    found = [point for point in entry_points(group=GROUP) if point.name == name]
    if not found:
        raise OptionError(f"unknown method {shortened(name)!r}: choose from {', '.join(names())}")
    loaded = found[0].load()
    if not (isinstance(loaded, type) and issubclass(loaded, Method)):
        raise OptionError(f"method {name!r}: {found[0].value} is no esamp Method; ask the package that installed it")
    return loaded


def available() -> dict[str, type[Method]]:
    """All installed methods by name, each as its package has it."""
    return {name: part(name) for name in names()}
