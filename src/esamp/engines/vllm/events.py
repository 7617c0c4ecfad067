"""`EventStream`: finds the end of a stream of server-sent events, wherever its bytes are cut."""

import json
import re
from collections.abc import Mapping
from typing import Any

DONE = b"data: [DONE]"
"""The line that ends an OpenAI stream."""
COMMON = ("id", "object", "created", "model")
"""What all events of a response have in common."""
EVENT = re.compile(rb"^data: (\{.*\})\r?$", re.MULTILINE)


class EventStream:
    """Bytes in, the same bytes out, with a pause where one more event belongs: just before the end."""

    first: dict[str, Any] | None = None
    """the first event that is a JSON object"""

    def __init__(self) -> None:
        self._held, self._inside = b"", False

    def feed(self, chunk: bytes) -> tuple[bytes, bytes | None]:
        """What goes out now, and, if the end of the stream is reached, what goes out after a last event.

        Bytes at the end of `chunk` that may be the beginning of `DONE` are held back.
        """
        data, self._held = self._held + chunk, b""
        if self.first is None:
            self._read(data)
        lines = data if self._inside else b"\n" + data  # every line that begins here has a line break before it
        shift = len(lines) - len(data)
        found = lines.find(b"\n" + DONE)
        if found >= 0:
            cut = found + 1 - shift
            return data[:cut], data[cut:]
        broken, _, last = lines.rpartition(b"\n")
        if len(broken) + len(last) < len(lines) and last and DONE.startswith(last):
            self._held = last
            data = data[: len(data) - len(last)]
        if data:
            self._inside = not data.endswith(b"\n")
        return data, None

    def rest(self) -> bytes:
        """What is still held back when the stream ends without `DONE`."""
        return self._held

    def like_first(self, fields: Mapping[str, Any]) -> bytes:
        """An event of the same response as the first one."""
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
