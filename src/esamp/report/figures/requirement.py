"""Whether figures can be drawn on this machine."""

from importlib.util import find_spec

from esamp.errors import MissingDependencyError
from esamp.extras import install_command


def check_matplotlib() -> None:
    """Check before a measurement that its figures can be drawn.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise MissingDependencyError(f"figures need matplotlib: {install_command('figures')}")
