"""Messages between judge and candidate: eight digits of length, then JSON of plain values with their types.

What is read is checked, since the other end may be hostile: only exact built-in values and numbered handles come out.
Runs in both interpreters of a check, with the standard library only.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

LONGEST = 64 << 20
"""Bytes of one message."""
DEEPEST = 200
"""Levels of values within values."""
DIGITS = 100_000
"""Decimal digits of a whole number."""
EXCEPTIONS = (
    *("ArithmeticError", "AssertionError", "AttributeError", "BlockingIOError", "BrokenPipeError", "BufferError"),
    *("ChildProcessError", "ConnectionError", "EOFError", "FileExistsError", "FileNotFoundError"),
    *("FloatingPointError", "ImportError", "IndexError", "IndentationError", "InterruptedError", "IsADirectoryError"),
    *("KeyError", "LookupError", "MemoryError", "ModuleNotFoundError", "NameError", "NotADirectoryError"),
    *("NotImplementedError", "OSError", "OverflowError", "PermissionError", "ProcessLookupError", "RecursionError"),
    *("ReferenceError", "RuntimeError", "SyntaxError", "SystemError", "TimeoutError", "TypeError"),
    *("UnboundLocalError", "UnicodeError", "ValueError", "ZeroDivisionError"),
)
"""The exceptions of the code that tests can expect. Another one arrives as the nearest of these that it is derived
from, else as a RuntimeError.

Not among them is what has a meaning for the interpreter that it is raised in: StopIteration would end a `map` or a
`for` of the tests early, and SystemExit the tests themselves.
"""
SEQUENCES: dict[str, type[Any]] = {"l": list, "t": tuple, "s": set, "f": frozenset}


class MessageError(Exception):
    """The message is not one of this protocol, or there is none because the other process ended."""


class Channel:
    """Messages over two pipes."""

    def __init__(self, reads: int, writes: int) -> None:
        self.reads, self.writes = os.fdopen(reads, "rb"), os.fdopen(writes, "wb")

    def send(self, message: list[Any]) -> None:
        """Send a message.

        Raises:
            ValueError: it is too large.
        """
        body = json.dumps(message).encode()
        if len(body) > LONGEST:
            raise ValueError("a value is too large")
        self.writes.write(b"%08d" % len(body) + body)
        self.writes.flush()

    def receive(self) -> list[Any]:
        """Wait for the next message: a list whose parts are not checked yet.

        Raises:
            MessageError: the process ended, or sent something else.
        """
        head = self.reads.read(8)
        if len(head) < 8:
            raise MessageError("the code's process ended before the tests did")
        if not head.isdigit() or int(head) > LONGEST:
            raise MessageError("the code's process sent no message")
        body = self.reads.read(int(head))
        if len(body) < int(head):
            raise MessageError("the code's process ended before the tests did")
        try:
            message = json.loads(body.decode("ascii"))
        except (ValueError, RecursionError):
            raise MessageError("the code's process sent no message") from None
        if type(message) is not list:
            raise MessageError("the code's process sent no message")
        return message


def pack(value: Any, number: Callable[[Any], int], depth: int = 0) -> Any:
    """A value as JSON: plain values with their type, anything else as the handle that `number` gives it.

    Raises:
        ValueError: it is nested too deeply.
    """
    if value is None or isinstance(value, bool):
        return value
    for plain in (int, float, str):
        if isinstance(value, plain):
            return plain(value)
    if isinstance(value, complex):
        return ["c", value.real, value.imag]
    if isinstance(value, (bytes, bytearray)):
        return ["b", value.hex()]
    if depth >= DEEPEST:
        raise ValueError(f"a value has more than {DEEPEST} levels")
    if isinstance(value, dict):
        return ["d", [[pack(each, number, depth + 1) for each in pair] for pair in value.items()]]
    for tag, kind in SEQUENCES.items():
        if isinstance(value, kind):
            return [tag, [pack(each, number, depth + 1) for each in value]]
    return ["r", number(value)]


def unpack(message: Any, handle: Callable[[int], Any], depth: int = 0) -> Any:
    """The value that was packed, made of exact built-in types and of what `handle` makes of a number.

    Raises:
        MessageError: `pack` makes no such message.
    """
    if type(message) is not list:
        if type(message) is dict:
            raise MessageError("the code's process sent no plain value: a JSON object")
        return message
    if not message or type(message[0]) is not str:
        raise MessageError("the code's process sent no plain value: a value without a type")
    tag, *parts = message
    kinds = [type(part) for part in parts]
    if tag == "c" and kinds == [float, float]:
        return complex(*parts)
    if tag == "r" and kinds == [int] and 0 <= parts[0] < 1 << 63:
        return handle(parts[0])
    if tag == "b" and kinds == [str]:
        return _bytes(parts[0])
    if kinds == [list] and depth < DEEPEST and (tag == "d" or tag in SEQUENCES):
        try:
            if tag == "d":
                return dict(_pair(each, handle, depth) for each in parts[0])
            return SEQUENCES[tag]([unpack(each, handle, depth + 1) for each in parts[0]])
        except TypeError:
            raise MessageError("the code's process sent no plain value: a list, set or dict as a key") from None
    raise MessageError("the code's process sent no plain value: a value of no known type, or with too many levels")


def _bytes(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise MessageError("the code's process sent no plain value: bytes that are not in hexadecimal digits") from None


def _pair(message: Any, handle: Callable[[int], Any], depth: int) -> list[Any]:
    if type(message) is not list or len(message) != 2:
        raise MessageError("the code's process sent no plain value: a dict without pairs")
    return [unpack(each, handle, depth + 1) for each in message]
