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
        OptionError: no such task is installed, its package fails, or the entry point does not lead to a `Task`.
    """
    return plugins.load(GROUP, name, Task, "task")  # type: ignore[type-abstract]


def broken() -> dict[str, str]:
    """By name, why a task that is installed cannot be used. Imports all of them."""
    return plugins.failures(names(), get)
