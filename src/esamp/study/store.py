"""`Store`: a folder of finished groups that survives interruptions and that several processes can share.

    STORE/cells/<key of the cell>/cell.json        the cell's settings, for people and for `esamp study status`
    STORE/cells/<key of the cell>/records.jsonl    one line per group, appended and synced (see `esamp.runs.output`); of
                                                   a failed group the reason
    STORE/cells/<key of the cell>/<measure>.jsonl  later measurements of the groups, written in the same way

A process holds the lock of a cell's records while it works on the cell. The operating system releases the lock when the
process ends.
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from esamp.errors import BusyError, InputError
from esamp.files import unreadable
from esamp.methods import registry as methods
from esamp.runs.failures import FailureRecord
from esamp.runs.output import OutputFile
from esamp.study.grid import Cell
from esamp.study.records import Record

RECORDS = "records"


@dataclass(frozen=True)
class CellContents:
    """The content of one file of a cell, by the keys of the problems."""

    done: Mapping[str, Mapping[str, Any]]
    """lines of finished groups"""
    failed: Mapping[str, FailureRecord]
    """groups that failed in their last attempt"""
    records: Mapping[str, Record] = field(default_factory=dict)
    """the finished groups, if this is the file of records"""
    locations: Mapping[str, str] = field(default_factory=dict)
    """file and line number of each finished group"""

    @property
    def resolved(self) -> set[str]:
        """Problems that are not run again: those that are finished, and those that would fail again."""
        return self.done.keys() | {key for key, failure in self.failed.items() if not failure.retry}


class Store:
    """Reads and writes the groups of cells."""

    def __init__(self, root: Path) -> None:
        """Use or create the folder `root`.

        Raises:
            InputError: the folder cannot be created.
        """
        self.root = root
        try:
            (root / "cells").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot create the store {root}: {error.strerror}") from None

    def open(self, cell: Cell, name: str = RECORDS) -> OutputFile | None:
        """Open a file of the cell for appending: its records, or a measurement; None while another process has it open.

        Raises:
            InputError: the file cannot be opened, or its content is of another kind.
        """
        folder = self._folder(cell)
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot create {folder}: {error.strerror}") from None
        _write_once(folder / "cell.json", json.dumps({"title": cell.title, **cell.settings()}, indent=2))
        try:
            return OutputFile(folder / f"{name}.jsonl", {"cell": cell.key})
        except BusyError:
            return None

    def read(self, cell: Cell, name: str = RECORDS) -> dict[str, Mapping[str, Any]]:
        """The lines of finished groups by the keys of their problems. An unfinished last line is left out.

        Raises:
            InputError: another line cannot be read.
        """
        return dict(self.contents(cell, name).done)

    def contents(self, cell: Cell, name: str = RECORDS) -> CellContents:
        """The finished and the failed groups. An unfinished last line is left out.

        Raises:
            InputError: another line cannot be read, or has values that no run writes.
        """
        path = self._folder(cell) / f"{name}.jsonl"
        done, failed = dict[str, Mapping[str, Any]](), dict[str, FailureRecord]()
        records, locations = dict[str, Record](), dict[str, str]()
        for location, line in _lines(path):
            key = str(line["key"])
            if (failure := FailureRecord.of_line(line)) is not None:
                failed[key] = failure
                continue
            done[key], locations[key] = line, location
            if name == RECORDS:
                records[key] = _record(location, line, cell)
        failed = {key: failure for key, failure in failed.items() if key not in done}
        return CellContents(done, failed, records, locations)

    def _folder(self, cell: Cell) -> Path:
        return self.root / "cells" / cell.key


def _lines(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Location and values of every complete line; nothing if there is no such file."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    return  # another process is writing this line, or was killed while writing it
                yield f"{path}:{number}", _values(f"{path}:{number}", line)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise unreadable(path, error) from None


def _values(location: str, line: bytes) -> Mapping[str, Any]:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        raise InputError(f"{location} is damaged: delete that line, and its group is done again") from None
    if not isinstance(values, dict) or not isinstance(values.get("key"), str):
        raise InputError(f"{location} is not a line of a study: delete it")
    return values


def _record(location: str, line: Mapping[str, Any], cell: Cell) -> Record:
    """The group of a line, which must have as many samples as its cell; groups of searches may have fewer."""
    try:
        record = Record.of_json(line)
        count = len(record.samples)
        if count > cell.n or (count < cell.n and not methods.get(cell.arm.method).above_engines):
            raise InputError(f"it has {count} samples of {cell.n}")
    except InputError as error:
        raise InputError(f"{location}: {error}: delete that line, and its group is done again") from None
    return record


def _write_once(path: Path, text: str) -> None:
    """Write a file unless it exists. Other processes may do the same; the file is never visible half-written."""
    if path.exists():
        return
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        draft.write_text(text + "\n", encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from None
