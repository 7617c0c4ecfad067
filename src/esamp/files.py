"""Files that others made, read within limits."""

from pathlib import Path

from esamp.errors import InputError

MOST_BYTES = 1 << 30
"""Bytes of a file that is read at once."""


def exists(path: Path) -> bool:
    """Whether something is there.

    Raises:
        InputError: the system cannot tell: the name is too long, or a folder on the way is closed to us.
    """
    try:
        return path.exists()
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from None


def check_regular(path: Path) -> None:
    """Refuse a device, a pipe or a folder: a file of others may name one that never ends.

    Raises:
        InputError: it is one, or cannot be looked at.
    """
    if exists(path) and not path.is_file():
        raise InputError(f"cannot read {path}: it is not a regular file")


def read_bytes(path: Path, *, most: int = MOST_BYTES) -> bytes:
    """All of a file.

    Raises:
        InputError: it cannot be read, or is longer than `most` bytes.
    """
    try:
        with path.open("rb") as file:
            content = file.read(most + 1)
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from None
    if len(content) > most:
        raise InputError(f"cannot read {path}: it is longer than {most >> 20:,} MiB")
    return content


def unreadable(path: Path, error: OSError | ValueError) -> InputError:
    """The error for a file that the system does not let us read; a ValueError is of a name with a null character."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else error
    return InputError(f"cannot read {path}: {reason}")
