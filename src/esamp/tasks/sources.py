"""Where items come from: the Hugging Face hub through `datasets`, or a file that the user has."""

import csv
import gzip
import io
import json
import logging
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import Field

from esamp.errors import InputError, MissingDependencyError
from esamp.extras import install_command
from esamp.files import MOST_BYTES, check_regular, read_bytes
from esamp.options import Options


class SourceOptions(Options):
    """Options of every task whose items are loaded."""

    data: str | None = Field(None, min_length=1)
    """a local file (.jsonl, .json, .csv, also .gz) instead of the Hugging Face hub"""


def load(
    options: SourceOptions, hub: str, *, config: str | None = None, split: str = "test"
) -> list[Mapping[str, Any]]:
    """The rows of a data set.

    Args:
        options: say whether a local file is to be read.
        hub: the data set's name on the Hugging Face hub.
        config: which of its configurations.
        split: which of its splits.

    Raises:
        InputError: the file or the data set cannot be loaded.
        MissingDependencyError: the hub is wanted and `datasets` is not installed.
    """
    if options.data is not None:
        return read_rows(Path(options.data))
    try:
        from datasets import load_dataset
    except ModuleNotFoundError:
        raise MissingDependencyError(f"the package 'datasets' loads this task: {install_command('tasks')}") from None
    try:
        with _one_error():
            return list(load_dataset(hub, config, split=split))
    except (OSError, RuntimeError, ValueError) as error:  # no network, no such data set, gated: all of them say so here
        raise _unreachable(hub, error) from None


def fetch(options: SourceOptions, hub: str, files: Sequence[str]) -> list[Path]:
    """The local copies of files of a data set: what `load` cannot load is read from them by `stream_rows`.

    Args:
        options: say whether a local file is to be read: then this one.
        hub: the data set's name on the Hugging Face hub.
        files: their names in it. They stay in the hub's cache.

    Raises:
        InputError: they cannot be loaded.
    """
    if options.data is not None:
        return [Path(options.data)]
    from huggingface_hub import hf_hub_download

    try:
        with _one_error():
            return [Path(hf_hub_download(hub, name, repo_type="dataset")) for name in files]
    except (OSError, RuntimeError, ValueError) as error:
        raise _unreachable(hub, error) from None


def read_rows(path: Path) -> list[Mapping[str, Any]]:
    """The rows of a local file: a JSON object a line, one JSON list, or a CSV file with a header.

    Raises:
        InputError: it cannot be read, or has another format; names the line.
    """
    return list(stream_rows(path))


def stream_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    """The same one by one: a large file with an object a line is never in memory as a whole.

    Raises:
        InputError: it cannot be read, or has another format; names the line.
    """
    check_regular(path)
    kind = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    try:
        if kind == ".csv":
            yield from csv.DictReader(io.StringIO(_text(path), newline=""))  # a field in quotes may have several lines
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


def field(where: str, row: Mapping[str, Any], *names: str) -> Any:
    """The first of these fields that the row has.

    Raises:
        InputError: it has none of them.
    """
    for name in names:
        if row.get(name) is not None:
            return row[name]
    raise InputError(f"{where} has no field {' or '.join(map(repr, names))}: is it the right data set?")


@contextmanager
def _one_error() -> Iterator[None]:
    """Without the hub's eleven lines about its attempts: the error says it."""
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
