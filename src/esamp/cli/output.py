"""Standard output that may fail: its reader closes the pipe, or the disk is full."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import TextIO

from typing_extensions import override

BROKEN_PIPE = 128 + 13
"""Exit code when the reader of a pipe is gone: what shells report for a program that the signal SIGPIPE ended."""


class OutputError(Exception):
    """Standard output cannot be written. Not an `OSError`, which libraries handle in their own ways."""

    def __init__(self, error: OSError) -> None:
        """`error` is the system's."""
        super().__init__(error.strerror or str(error))
        self.closed = isinstance(error, BrokenPipeError)
        """whether the reader of the pipe is gone"""


class CheckedOutput(io.TextIOBase):
    """Passes everything on to a stream, and raises `OutputError` if the stream cannot be written."""

    def __init__(self, stream: TextIO) -> None:
        """Write to `stream`."""
        self._stream = stream

    @override
    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            raise OutputError(error) from None

    @override
    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            raise OutputError(error) from None

    @override
    def isatty(self) -> bool:
        return self._stream.isatty()

    @override
    def fileno(self) -> int:
        return self._stream.fileno()

    @override
    def writable(self) -> bool:
        return True

    @property
    @override
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding

    @property
    @override
    def errors(self) -> str | None:  # type: ignore[override]
        return self._stream.errors


@contextmanager
def checked(stream: TextIO) -> Iterator[None]:
    """A block in which everything that is printed goes to `stream` and is flushed at the end.

    Raises:
        OutputError: the stream cannot be written. What it still holds is dropped, because the interpreter would fail
            once more to write it.
    """
    output = CheckedOutput(stream)
    try:
        with redirect_stdout(output):
            yield
        output.flush()
    except OutputError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        raise
