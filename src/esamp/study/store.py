"""`Store`: a folder of finished groups that survives whatever ends a process, and that several processes share.

    STORE/cells/<key of the cell>/cell.json        what the cell is, for people and for `esamp study status`
    STORE/cells/<key of the cell>/records.jsonl    one line a group, appended and synced (see `esamp.runs.output`); of a
                                                   group that failed the reason
    STORE/cells/<key of the cell>/<measure>.jsonl  what was measured of the groups later, in the same way

A process holds the lock of a cell's records while it works on the cell; the kernel gives it back however the process
ends.
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
class Contents:
    """What a file of a cell holds, by the keys of the problems."""

    done: Mapping[str, Mapping[str, Any]]
    """lines of finished groups"""
    failed: Mapping[str, FailureRecord]
    """groups that failed when they were last tried"""
    records: Mapping[str, Record] = field(default_factory=dict)
    """of the file of records: the finished groups"""
    places: Mapping[str, str] = field(default_factory=dict)
    """file and line of what is done"""

    @property
    def settled(self) -> set[str]:
        """Problems with nothing left to do: those that are done, and those that would fail again."""
        return self.done.keys() | {key for key, failure in self.failed.items() if not failure.retry}


class Store:
    """Reads and writes the groups of cells."""

    def __init__(self, root: Path) -> None:
        """Use or create the folder.

        Raises:
            InputError: it cannot be created.
        """
        self.root = root
        try:
            (root / "cells").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot create the store {root}: {error.strerror}") from None

    def open(self, cell: Cell, name: str = RECORDS) -> OutputFile | None:
        """The cell's records, or what is measured of them, to go on with; None while another process works on them.

        Raises:
            InputError: the file holds something else, or something else is in its place.
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
        """The cell's records by the keys of their problems, as written, without the groups that failed.

        What a process is just writing is left out.

        Raises:
            InputError: a line within the file cannot be read.
        """
        return dict(self.contents(cell, name).done)

    def contents(self, cell: Cell, name: str = RECORDS) -> Contents:
        """What `read` gives, and the groups that failed.

        Raises:
            InputError: a line within the file cannot be read, or has values that no run writes.
        """
        path = self._folder(cell) / f"{name}.jsonl"
        done, failed = dict[str, Mapping[str, Any]](), dict[str, FailureRecord]()
        records, places = dict[str, Record](), dict[str, str]()
        for where, line in _lines(path):
            key = str(line["key"])
            if (failure := FailureRecord.of_line(line)) is not None:
                failed[key] = failure
                continue
            done[key], places[key] = line, where
            if name == RECORDS:
                records[key] = _record(where, line, cell)
        return Contents(done, {key: each for key, each in failed.items() if key not in done}, records, places)

    def _folder(self, cell: Cell) -> Path:
        return self.root / "cells" / cell.key


def _lines(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Place and values of every whole line; none if there is no such file."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    return  # the end of what is being written, or of what a killed process left
                yield f"{path}:{number}", _values(f"{path}:{number}", line)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise unreadable(path, error) from None


def _values(where: str, line: bytes) -> Mapping[str, Any]:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        raise InputError(f"{where} is damaged: delete that line, and its group is done again") from None
    if not isinstance(values, dict) or not isinstance(values.get("key"), str):
        raise InputError(f"{where} is not a line of a study: delete it")
    return values


def _record(where: str, line: Mapping[str, Any], cell: Cell) -> Record:
    """The group of a line, with as many samples as its cell has; searches may have fewer."""
    try:
        record = Record.of_json(line)
        count = len(record.samples)
        if count > cell.n or (count < cell.n and not methods.get(cell.arm.method).above_engines):
            raise InputError(f"it has {count} samples of {cell.n}")
    except InputError as error:
        raise InputError(f"{where}: {error}: delete that line, and its group is done again") from None
    return record


def _write_once(path: Path, text: str) -> None:
    """Write a file that is either there as a whole or not at all, whoever else writes it at the same time."""
    if path.exists():
        return
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        draft.write_text(text + "\n", encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from None
