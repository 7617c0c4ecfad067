"""Loads classes from the entry points of installed packages. Entry points are listed once; a class is imported on use.

A package whose import fails affects only the names that it offers.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import TypeVar

from esamp.errors import EsampError, OptionError
from esamp.quoting import did_you_mean, one_line, shortened, shown

Kind = TypeVar("Kind")
OURS = "esamp."
"""Beginning of the targets of this package's own entry points."""
LONGEST = 300
"""Limit on the characters of another package's error in a message."""


@dataclass(frozen=True)
class Failed:
    """Why an entry point could not be imported, as the end of a sentence."""

    reason: str


@cache
def entries(group: str) -> Mapping[str, EntryPoint]:
    """The entry points of a group by name, sorted. Of several with one name, ours is taken, else the first one.

    Searching all installed packages takes milliseconds, so the result is cached; `forget` clears the cache.
    """
    by_name: dict[str, EntryPoint] = {}
    for point in sorted(entry_points(group=group), key=lambda point: not point.value.startswith(OURS)):
        by_name.setdefault(point.name, point)
    return MappingProxyType(dict(sorted(by_name.items())))


def load(group: str, name: str, kind: type[Kind], word: str) -> type[Kind]:
    """The class of an entry point.

    Args:
        group: the group of entry points.
        name: the entry point's name.
        kind: the class that the loaded class must derive from.
        word: for `kind` in messages: method, task.

    Raises:
        OptionError: there is no such name, its import fails, or it is not a subclass of `kind`.
    """
    points = entries(group)
    if name not in points:
        close = did_you_mean(name, points)
        raise OptionError(f"unknown {word} {shown(name)}{close}: choose from {', '.join(points)}")
    loaded, target = _imported(points[name]), points[name].value
    if isinstance(loaded, Failed):
        raise OptionError(f"{word} {name!r}: {loaded.reason}; ask the package that installed it")
    if not (isinstance(loaded, type) and issubclass(loaded, kind)):
        raise OptionError(
            f"{word} {name!r}: {target} is not an esamp {kind.__name__}; ask the package that installed it"
        )
    return loaded


@cache
def _imported(point: EntryPoint) -> object:
    """The target of an entry point; `Failed` if it cannot be imported."""
    try:
        return point.load()
    except EsampError:  # says what to do
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001  # another package's module may raise anything; reported
        message = shortened(one_line(f"{type(error).__name__}: {error}".rstrip(": ")), LONGEST)
        return Failed(f"importing {point.value} failed ({message})")


def failures(names: Iterable[str], get: Callable[[str], object]) -> dict[str, str]:
    """The messages of the `EsampError` that `get` raises, by name; names without an error are left out."""
    failed = {}
    for name in names:
        try:
            get(name)
        except EsampError as error:
            failed[name] = str(error)
    return failed


def forget() -> None:
    """Clear the caches: the next call searches the installed packages, and imports them, again."""
    entries.cache_clear()
    _imported.cache_clear()
