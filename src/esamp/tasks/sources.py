"""Sources of items: data sets on the Hugging Face hub, read through `datasets`, and local files."""

import csv
import gzip
import io
import json
import logging
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from esamp.errors import InputError, MissingDependencyError
from esamp.extras import install_command
from esamp.files import MOST_BYTES, check_regular, read_bytes
from esamp.options import Options


class SourceOptions(Options):
    """Options of every task whose items are loaded."""

    data: str | None = Field(default=None, min_length=1)
    """a local file (.jsonl, .json, .csv, also .gz) instead of the Hugging Face hub"""


@dataclass(frozen=True)
class DataSet:
    """A data set on the Hugging Face hub."""

    hub: str
    config: str | None = None
    split: str = "test"


@dataclass(frozen=True)
class Row:
    """One row of a data set, with the position that error messages name."""

    values: Mapping[str, Any]
    place: int
    """position in the data set, from 0"""
    source: str
    """the data set's name in error messages and item ids"""
    noun: str = "problem"
    """what error messages call a row"""

    @property
    def where(self) -> str:
        """The row in error messages, such as ``gsm8k, problem 3``; it quotes nothing of the row."""
        return f"{self.source}, {self.noun} {self.place + 1}"

    def field(self, *names: str) -> Any:
        """The value of the first of these fields that the row has.

        Raises:
            InputError: the row has none of them.
        """
        for name in names:
            if self.values.get(name) is not None:
                return self.values[name]
        wanted = " or ".join(map(repr, names))
        raise InputError(f"{self.where} has no field {wanted}: is it the right data set?")

    def text(self, *names: str) -> str:
        """`field` as a string."""
        return str(self.field(*names))


def load(options: SourceOptions, data_set: DataSet) -> list[Mapping[str, Any]]:
    """The rows of a data set, or of the local file that `options` name instead.

    Raises:
        InputError: the file or the data set cannot be loaded.
        MissingDependencyError: the hub is needed and `datasets` is not installed.
    """
    if options.data is not None:
        return read_rows(Path(options.data))
    try:
        from datasets import load_dataset
    except ModuleNotFoundError:
        raise MissingDependencyError(f"the package 'datasets' loads this task: {install_command('tasks')}") from None
    try:
        with _quiet_hub():
            return list(load_dataset(data_set.hub, data_set.config, split=data_set.split))
    except (OSError, RuntimeError, ValueError) as error:  # no network, no such data set, or access not granted
        raise _unreachable(data_set.hub, error) from None


def fetch(options: SourceOptions, hub: str, files: Sequence[str]) -> list[Path]:
    """Local copies of single files of a data set, for `stream_rows`, where `load` cannot read the data set.

    Args:
        options: if they name a local file, it is returned instead.
        hub: the data set's name on the Hugging Face hub.
        files: names of files in the data set; downloads stay in the hub's cache.

    Raises:
        InputError: a file cannot be downloaded.
    """
    if options.data is not None:
        return [Path(options.data)]
    from huggingface_hub import hf_hub_download

    try:
        with _quiet_hub():
            return [Path(hf_hub_download(hub, name, repo_type="dataset")) for name in files]
    except (OSError, RuntimeError, ValueError) as error:
        raise _unreachable(hub, error) from None


def local_path(task: str, data: str | None, example: str) -> Path:
    """The path in the option `data` of a task whose only source is a local file.

    Raises:
        InputError: the option is not set.
    """
    if data is None:
        raise InputError(
            f"{task} reads a local file: give --data {example}, or write options = {{ data = '{example}' }} into the "
            "study"
        )
    return Path(data)


def read_text(path: Path) -> str:
    """The content of a text file.

    Raises:
        InputError: the file cannot be read or is not UTF-8.
    """
    try:
        check_regular(path)
        return read_bytes(path).decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8") from None


def read_rows(path: Path) -> list[Mapping[str, Any]]:
    """The rows of a local file: one JSON object per line, one JSON list, or a CSV file with a header.

    Raises:
        InputError: the file cannot be read or has another format; the message names the line.
    """
    return list(stream_rows(path))


def stream_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    """`read_rows` one row at a time: a file with one object per line is never held in memory as a whole.

    Raises:
        InputError: the file cannot be read or has another format; the message names the line.
    """
    check_regular(path)
    kind = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    try:
        if kind == ".csv":
            yield from csv.DictReader(io.StringIO(_text(path), newline=""))  # a quoted field may span lines
        elif kind == ".json":
            for place, each in enumerate(_list(path, _text(path)), 1):
                yield _object(f"{path}, entry {place}", each)
        else:
            for number, line in enumerate(_lines(path), 1):
                if line.strip():
                    yield _object(f"{path}:{number}", _parsed(f"{path}:{number}", line))
    except (OSError, EOFError, zlib.error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise InputError(f"cannot read {path}: {reason}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8") from None
    except csv.Error as error:
        raise InputError(f"{path} is not a CSV file: {error}") from None


@contextmanager
def _quiet_hub() -> Iterator[None]:
    """Silence the hub's log of its attempts; the error that follows states the reason."""
    log = logging.getLogger("huggingface_hub")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


def _unreachable(hub: str, error: Exception) -> InputError:
    first = str(error).strip().split("\n", 1)[0][:300]
    return InputError(
        f"cannot load the data set {hub} from the Hugging Face hub ({first}): give a copy of it with --data FILE, "
        "or write options = { data = 'FILE' } into the study"
    )


def _lines(path: Path) -> Iterator[str]:
    if path.suffix == ".gz":
        yield from _text(path).split("\n")
    else:
        with path.open(encoding="utf-8", newline="\n") as file:
            while line := file.readline(MOST_BYTES):
                if len(line) == MOST_BYTES:
                    raise InputError(f"{path} has a line of more than {MOST_BYTES >> 20:,} MiB")
                yield line


def _text(path: Path) -> str:
    if path.suffix != ".gz":
        return read_bytes(path).decode()
    with gzip.open(path, "rb") as file:
        raw = file.read(MOST_BYTES + 1)
    if len(raw) > MOST_BYTES:
        raise InputError(f"{path} unpacks to more than {MOST_BYTES >> 20:,} MiB")
    return raw.decode()


def _parsed(where: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not valid JSON ({error})") from None


def _list(path: Path, text: str) -> list[Any]:
    found = _parsed(str(path), text)
    if not isinstance(found, list):
        raise InputError(f"{path} should hold a list of objects")
    return found


def _object(where: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{where}: expected an object")
    return value
