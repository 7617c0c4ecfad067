"""`EventStream`: finds the end of a stream of server-sent events, however its bytes are split into chunks."""

import json
import re
from collections.abc import Mapping
from typing import Any

DONE = b"data: [DONE]"
"""The line that ends an OpenAI stream."""
COMMON = ("id", "object", "created", "model")
"""Fields with the same value in all events of a response."""
EVENT = re.compile(rb"^data: (\{.*\})\r?$", re.MULTILINE)


class EventStream:
    """Passes bytes through, and splits them where one more event can be inserted: just before the end."""

    first: dict[str, Any] | None = None
    """the first event that is a JSON object"""

    def __init__(self) -> None:
        self._held, self._inside = b"", False

    def feed(self, chunk: bytes) -> tuple[bytes, bytes | None]:
        """The bytes to send now and, once the end of the stream is reached, those to send after the inserted event.

        Bytes at the end of `chunk` that may be the beginning of `DONE` are held back.
        """
        data, self._held = self._held + chunk, b""
        if self.first is None:
            self._read(data)
        lines = data if self._inside else b"\n" + data  # now a line break precedes every line that begins here
        shift = len(lines) - len(data)
        end = lines.find(b"\n" + DONE)
        if end >= 0:
            cut = end + 1 - shift
            return data[:cut], data[cut:]
        broken, _, last = lines.rpartition(b"\n")
        if len(broken) + len(last) < len(lines) and last and DONE.startswith(last):
            self._held = last
            data = data[: len(data) - len(last)]
        if data:
            self._inside = not data.endswith(b"\n")
        return data, None

    def rest(self) -> bytes:
        """The bytes that are held back, to be sent when the stream ends without `DONE`."""
        return self._held

    def like_first(self, fields: Mapping[str, Any]) -> bytes:
        """An event with these fields, and with the id and other common fields of the first event."""
        known = {key: value for key, value in (self.first or {}).items() if key in COMMON}
        return b"data: " + json.dumps({**known, **fields}, separators=(",", ":")).encode() + b"\n\n"

    def _read(self, data: bytes) -> None:
        for text in EVENT.findall(data):
            try:
                event = json.loads(text)
            except ValueError:
                continue
            self.first = event
            return
