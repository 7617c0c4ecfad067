"""Reads files of unknown origin: only regular files, up to a limit on their size."""

from pathlib import Path

from esamp.errors import InputError

MOST_BYTES = 1 << 30
"""Default limit of `read_bytes`, in bytes."""


def exists(path: Path) -> bool:
    """Whether there is a file or folder with this path.

    Raises:
        InputError: the system cannot tell: the name is too long, or a parent folder may not be entered.
    """
    try:
        return path.exists()
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from None


def check_regular(path: Path) -> None:
    """Refuse a device, a pipe or a folder: reading one may never end. A path that does not exist passes.

    Raises:
        InputError: it is one, or the system cannot tell.
    """
    if exists(path) and not path.is_file():
        raise InputError(f"cannot read {path}: it is not a regular file")


def read_bytes(path: Path, *, most: int = MOST_BYTES) -> bytes:
    """The content of a file.

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
    """The error for a file that cannot be read. A ValueError means that its name contains a null character."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else error
    return InputError(f"cannot read {path}: {reason}")
