"""`OutputFile`: an append-only JSONL file that stays valid if the process is killed, and that a later run continues."""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from esamp.errors import BusyError, EsampError, InputError
from esamp.runs.failures import FailureRecord

START = b'{"esamp": "'
"""The beginning of every line. A file with other content was not written by this class and is not modified."""


class OutputFile:
    """One line per finished prompt: version, key, id, prompt, samples, telemetry and the settings of the run.

    The line of a failed prompt has the field ``failure`` instead of samples. Of several lines with one key the last
    counts. A line is on disk (fsync) when `append` returns. An incomplete last line, left by a killed process, is
    removed on opening, and `torn` is then True. An advisory lock excludes a second process while the file is open.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        """Open or create the file.

        Raises:
            InputError: the file cannot be opened, is in use, or holds other content or lines of other settings.
        """
        self.path, self.settings = path, dict(settings)
        self.done: set[str] = set()
        self.failed: dict[str, FailureRecord] = {}
        self.torn = False
        try:
            if path.exists() and not path.is_file():
                raise InputError(f"cannot write to {path}: it is not a regular file (--json prints to standard output)")
            self._file = path.open("ab", buffering=0)
        except (OSError, ValueError) as error:
            raise InputError(f"cannot open {path}: {error.strerror if isinstance(error, OSError) else error}") from None
        try:
            self._lock()
            self.recover()
        except OSError as error:
            self._file.close()
            raise InputError(f"cannot continue {path}: {error.strerror}") from None
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def append(self, key: str, record: Mapping[str, Any]) -> None:
        """Add a line and wait until it is on disk.

        Raises:
            EsampError: the line cannot be written.
        """
        line = {"esamp": version("esamp"), "key": key, **record, "settings": self.settings}
        text = json.dumps(line, ensure_ascii=False, allow_nan=False)
        rest = memoryview(text.encode(errors="backslashreplace") + b"\n")
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            raise EsampError(f"cannot write to {self.path}: {error.strerror}") from None
        self._count(key, line)

    def is_finished(self, key: str) -> bool:
        """Whether a key needs no further work: it is done, or it failed and would fail again."""
        return key in self.done or (key in self.failed and not self.failed[key].retry)

    def recover(self) -> None:
        """Read the keys in the file and remove an incomplete last line, on opening or after an interrupted `append`.

        Raises:
            InputError: the file holds other content, or lines of other settings.
        """
        end = 0
        for number, line in enumerate(self._lines(), 1):
            where = f"{self.path}:{number}"
            if line.endswith(b"\n"):
                self._count(*_read(where, line, self.settings))
                end += len(line)
                continue
            partial = line.rstrip(b"\0")
            if not (partial.startswith(START) or START.startswith(partial)):
                raise _not_ours(where)
            self.torn = True
        if self.torn:
            self._file.truncate(end)
        os.fsync(self._file.fileno())
        _sync_folder(self.path)

    def _count(self, key: str, line: Mapping[str, Any]) -> None:
        if (failure := FailureRecord.of_line(line)) is not None:
            self.failed[key] = failure
            return
        self.done.add(key)
        self.failed.pop(key, None)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(
                f"{self.path} is being written by another process: wait for it, or give another file"
            ) from None

    def _lines(self) -> Iterator[bytes]:
        with self.path.open("rb") as file:
            yield from file


def _read(where: str, line: bytes, settings: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """The key and the fields of a line.

    Raises:
        InputError: it has other content, or was written with other settings.
    """
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        raise _not_ours(where) from None
    if not isinstance(fields, dict) or not isinstance(fields.get("key"), str) or "settings" not in fields:
        raise _not_ours(where)
    if differences := _differences(fields["settings"], settings):
        raise InputError(
            f"{where} was written with other settings ({'; '.join(differences)}): "
            "give the same ones to continue it, or another output file"
        )
    return fields["key"], fields


def _sync_folder(path: Path) -> None:
    """Write the folder to disk, so that a new file's name is as durable as its content."""
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _not_ours(where: str) -> InputError:
    return InputError(
        f"{where} was not written by a run like this one; files with other content are not changed: give another "
        "output file"
    )


def _differences(there: object, here: Mapping[str, Any]) -> list[str]:
    """Descriptions of the settings that differ, such as ``n = 4 there, 8 here``; at most six."""
    old, new = dict(_flat("", there)), dict(_flat("", here))
    shown = [
        f"{name} = {json.dumps(old[name]) if name in old else 'not set'} there, "
        f"{json.dumps(new[name]) if name in new else 'not set'} here"
        for name in {**old, **new}
        if name not in old or name not in new or old[name] != new[name]
    ]
    return shown if len(shown) <= 6 else [*shown[:6], f"and {len(shown) - 6} more"]


def _flat(name: str, value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _flat(f"{name}.{key}" if name else str(key), inner)
    else:
        yield name, value
