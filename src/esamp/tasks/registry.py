"""Tasks by name. Any installed package can add one through the entry point group ``esamp.tasks``."""

from esamp import plugins
from esamp.tasks.base import Task

GROUP = "esamp.tasks"


def names() -> tuple[str, ...]:
    """Names of all installed tasks, sorted, without importing them."""
    return tuple(plugins.entries(GROUP))


def get(name: str) -> type[Task]:
    """The task called `name`.

    Raises:
        OptionError: no such task is installed, its import fails, or its entry point is not a `Task`.
    """
    return plugins.load(GROUP, name, Task, "task")  # type: ignore[type-abstract]


def broken() -> dict[str, str]:
    """For each installed task that cannot be imported, the reason. Imports all of them."""
    return plugins.failures(names(), get)
