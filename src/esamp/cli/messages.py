"""Messages on standard error."""

import sys
from pathlib import Path

from esamp.quoting import one_line


def message(text: str) -> None:
    """Print ``esamp: text`` on standard error, as one line."""
    print(f"esamp: {one_line(text)}", file=sys.stderr)


def warn_torn(path: Path, consequence: str) -> None:
    """Warn that the last line of a file is incomplete."""
    message(f"warning: the last line of {path} was cut off by an interruption, {consequence}")


def counted(count: int, noun: str) -> str:
    """``1 prompt``, ``2 prompts``."""
    return f"{count} {noun}{'s' * (count != 1)}"
