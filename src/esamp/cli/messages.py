"""Messages on standard error."""

import sys

from esamp.quoting import one_line


def message(text: str) -> None:
    """``esamp: text`` on standard error, as one line."""
    print(f"esamp: {one_line(text)}", file=sys.stderr)
