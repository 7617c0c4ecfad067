"""Classes that installed packages offer by entry points: looked up once, imported when they are asked for.

A package that fails when it is imported costs nobody but those who ask for what it offers.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import TypeVar

from esamp.errors import EsampError, OptionError
from esamp.quoting import one_line, shortened, shown

Kind = TypeVar("Kind")
OURS = "esamp."
"""How the targets of this package's own entry points begin."""
LONGEST = 300
"""Characters of a stranger's error that a message repeats."""


@dataclass(frozen=True)
class Failed:
    """Why an entry point could not be imported, as the end of a sentence."""

    reason: str


@cache
def entries(group: str) -> Mapping[str, EntryPoint]:
    """The entry points of a group by name, sorted. Of several with one name ours wins, else the first one.

    To look through all installed packages takes milliseconds, so that it is done once: ``entries.cache_clear()`` makes
    the next call look again.
    """
    found: dict[str, EntryPoint] = {}
    for point in sorted(entry_points(group=group), key=lambda point: not point.value.startswith(OURS)):
        found.setdefault(point.name, point)
    return MappingProxyType(dict(sorted(found.items())))


def load(group: str, name: str, kind: type[Kind], word: str) -> type[Kind]:
    """The class that is called `name` in a group.

    Args:
        group: of entry points.
        name: of one of them.
        kind: the class that it must derive from.
        word: what it is called in messages: method, task.

    Raises:
        OptionError: there is no such name, its package fails when it is imported, or offers something else.
    """
    points = entries(group)
    if name not in points:
        raise OptionError(f"unknown {word} {shown(name)}: choose from {', '.join(points)}")
    loaded, target = _imported(points[name]), points[name].value
    if isinstance(loaded, Failed):
        raise OptionError(f"{word} {name!r}: {loaded.reason}; ask the package that installed it")
    if not (isinstance(loaded, type) and issubclass(loaded, kind)):
        raise OptionError(f"{word} {name!r}: {target} is no esamp {kind.__name__}; ask the package that installed it")
    return loaded


@cache
def _imported(point: EntryPoint) -> object:
    """What an entry point leads to; `Failed` if that cannot be imported."""
    try:
        return point.load()
    except EsampError:  # ours: it says what to do
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001  # a stranger's module may raise anything; it is reported
        said = shortened(one_line(f"{type(error).__name__}: {error}".rstrip(": ")), LONGEST)
        return Failed(f"importing {point.value} failed ({said})")


def failures(names: Iterable[str], get: Callable[[str], object]) -> dict[str, str]:
    """By name, why `get` cannot give it."""
    failed = {}
    for name in names:
        try:
            get(name)
        except EsampError as error:
            failed[name] = str(error)
    return failed


def forget() -> None:
    """Look through the installed packages again, and import again what failed."""
    entries.cache_clear()
    _imported.cache_clear()
