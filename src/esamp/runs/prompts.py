"""Prompts from arguments, standard input or a JSONL file, validated before a model is loaded."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from esamp.engines.base import Content
from esamp.errors import InputError
from esamp.files import read_bytes
from esamp.quoting import shortened


@dataclass(frozen=True)
class Prompt:
    id: str
    """the id in the file, or one derived from the content"""
    content: Content
    repeat: int = 0
    """number of earlier prompts with the same content"""


def from_texts(texts: Sequence[str]) -> list[Prompt]:
    """One prompt per text.

    Raises:
        InputError: a text is empty or not valid Unicode.
    """
    entries = []
    for number, text in enumerate(texts, 1):
        if not text.strip():
            raise InputError(f"prompt {number} is empty: give the text to continue or the question to answer")
        entries.append((f"prompt {number}", None, _content(f"prompt {number}", text)))
    return _identified(entries)


def read_text(stream: BinaryIO, *, name: str) -> list[Prompt]:
    """One prompt from a complete stream, without its last line break.

    Raises:
        InputError: the stream is empty or not UTF-8.
    """
    try:
        text = stream.read().decode().removesuffix("\n")
    except UnicodeDecodeError:
        raise InputError(f"{name} is not valid UTF-8") from None
    if not text:
        raise InputError(f"{name} is empty: it should hold one prompt")
    return from_texts([text])


def read_jsonl(path: Path) -> list[Prompt]:
    """The prompts of a JSONL file; see `parse_jsonl`."""
    return parse_jsonl(read_bytes(path).split(b"\n"), name=str(path))


def parse_jsonl(lines: Iterable[bytes], *, name: str) -> list[Prompt]:
    """One prompt per line: ``{"prompt": text}`` or ``{"messages": [{"role": ..., "content": ...}]}``.

    The field ``"id"`` (a text or whole number, unique in the file) is optional. Blank lines and other
    fields are ignored.

    Raises:
        InputError: a line is invalid, named in the message, or the file has no prompts.
    """
    entries = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            where = f"{name}:{number}"
            values = _object(where, line)
            entries.append((where, _id(where, values), _line_content(where, values)))
    if not entries:
        raise InputError(f'{name} has no prompts: each line should be an object such as {{"prompt": "Once upon"}}')
    return _identified(entries)


def as_messages(prompts: Iterable[Prompt]) -> list[Prompt]:
    """The prompts as chats: each text becomes a user message. Ids derived from the content are derived again."""
    entries: list[tuple[str, str | None, Content]] = []
    for number, prompt in enumerate(prompts, 1):
        chat = ({"role": "user", "content": prompt.content},) if isinstance(prompt.content, str) else prompt.content
        derived = prompt.id == _derived_id(_digest(prompt.content), prompt.repeat)
        entries.append((f"prompt {number}", None if derived else prompt.id, chat))
    return _identified(entries)


def _object(where: str, line: bytes) -> dict[str, Any]:
    try:
        values = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: not valid JSON ({error.msg} at column {error.colno})") from None
    except UnicodeDecodeError:
        raise InputError(f"{where}: not valid UTF-8") from None
    except (RecursionError, ValueError) as error:
        raise InputError(f"{where}: not usable as JSON ({error})") from None
    if not isinstance(values, dict):
        raise InputError(f'{where}: expected an object such as {{"prompt": "Once upon"}}, not {_shown(values)}')
    return values


def _id(where: str, values: dict[str, Any]) -> str | None:
    value = values.get("id")
    if value is None or (isinstance(value, str) and value):
        return None if value is None else _unicode(where, value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise InputError(f'{where}: "id" should be a text or a whole number, not {_shown(value)}')


def _line_content(where: str, values: dict[str, Any]) -> Content:
    if ("prompt" in values) == ("messages" in values):
        keys = ", ".join(repr(key) for key in values) or "none"
        raise InputError(f'{where}: expected either "prompt" or "messages"; its keys: {keys}')
    if "prompt" in values:
        text = _content(where, values["prompt"])
        if not text.strip():
            raise InputError(f"{where}: the prompt is empty: give the text to continue or the question to answer")
        return text
    messages = values["messages"]
    if not isinstance(messages, list) or not messages:
        raise InputError(f'{where}: "messages" should be a list with at least one message, not {_shown(messages)}')
    chat = tuple(_message(where, message) for message in messages)
    if not chat[-1]["content"].strip():
        raise InputError(f"{where}: the last message is empty: give the question to answer as its content")
    return chat


def _message(where: str, message: Any) -> Mapping[str, str]:
    if not isinstance(message, dict) or not all(isinstance(message.get(key), str) for key in ("role", "content")):
        raise InputError(f'{where}: a message needs "role" and "content", both texts, not {_shown(message)}')
    return {key: _unicode(where, message[key]) for key in ("role", "content")}


def _content(where: str, text: Any) -> str:
    if not isinstance(text, str):
        raise InputError(f'{where}: "prompt" should be a text, not {_shown(text)}')
    return _unicode(where, text)


def _unicode(where: str, text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError(f"{where}: contains half a surrogate pair, or bytes that are not UTF-8") from None
    return text


def _identified(entries: Iterable[tuple[str, str | None, Content]]) -> list[Prompt]:
    """The prompts of entries (where, id, content).

    An entry without an id gets a hash of its content and of the number of earlier entries with the same content, so it
    keeps its id when other lines are added.
    """
    prompts: list[Prompt] = []
    places: dict[str, str] = {}
    repeats: Counter[str] = Counter()
    for where, given, content in entries:
        digest = _digest(content)
        repeat = repeats[digest]
        name = given or _derived_id(digest, repeat)
        if name in places:
            raise InputError(f"{where}: the id {name!r} was already used at {places[name]}")
        prompts.append(Prompt(name, content, repeat))
        places[name] = where
        repeats[digest] += 1
    return prompts


def _digest(content: Content) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]


def _derived_id(digest: str, repeat: int) -> str:
    return f"{digest}-{repeat + 1}" if repeat else digest


def _shown(value: Any) -> str:
    """A value as JSON, shortened for a message."""
    return shortened(json.dumps(value), 60)
