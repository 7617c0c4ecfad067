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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from esamp.errors import BusyError, InputError
from esamp.runs.failures import FailureRecord
from esamp.runs.output import OutputFile
from esamp.study.grid import Cell

RECORDS = "records"


@dataclass(frozen=True)
class Contents:
    """What a file of a cell holds, by the keys of the problems."""

    done: Mapping[str, Mapping[str, Any]]
    """lines of finished groups"""
    failed: Mapping[str, FailureRecord]
    """groups that failed when they were last tried"""

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
            InputError: the file holds something else.
        """
        folder = self._folder(cell)
        folder.mkdir(exist_ok=True)
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
            InputError: a line within the file cannot be read.
        """
        path = self._folder(cell) / f"{name}.jsonl"
        done, failed = dict[str, Mapping[str, Any]](), dict[str, FailureRecord]()
        for line in _lines(path) if path.exists() else ():
            key = str(line["key"])
            if (failure := FailureRecord.of_line(line)) is None:
                done[key] = line
            else:
                failed[key] = failure
        return Contents(done, {key: failure for key, failure in failed.items() if key not in done})

    def _folder(self, cell: Cell) -> Path:
        return self.root / "cells" / cell.key


def _lines(path: Path) -> Iterator[Mapping[str, Any]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return  # the end of what is being written, or of what a killed process left
            try:
                values = json.loads(line)
            except ValueError:
                raise InputError(f"{path}:{number} is damaged: delete that line, and its group is done again") from None
            if not isinstance(values, dict) or not isinstance(values.get("key"), str):
                raise InputError(f"{path}:{number} is not a line of a study: delete it")
            yield values


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
