"""An OpenAI-compatible HTTP server that sends scripted replies."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Raw:
    """A response with status 200 and the given headers, whose body is streamed part by part."""

    headers: Mapping[str, str]
    parts: Iterator[bytes]


Reply = tuple[int, Any] | Raw | None
"""Status and body (bytes, or a value sent as JSON; for a redirect its location); None closes the connection."""


class QueueingServer(ThreadingHTTPServer):
    """Queues up to 128 connections; `socketserver` queues five, and further clients retry only after a second."""

    request_queue_size = 128


class ScriptedServer:
    """Sends `replies` in turn, and the last one from then on. Records all requests."""

    def __init__(self) -> None:
        self.replies: list[Reply] = [(200, completion())]
        self.answer: Callable[[str], Reply] | None = None
        """if it is set, gives the reply to a prompt (or last message) instead of `replies`"""
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[Mapping[str, str]] = []
        self.paths: list[str] = []
        self.models: Reply = (200, {"data": [{"id": "some", "owned_by": "somebody"}]})
        self.about: Reply = (404, {"detail": "Not Found"})
        self.most = self._now = 0
        """the largest and the current number of simultaneous requests"""
        self.pause = 0.0
        """seconds before each reply"""
        self._lock = threading.Lock()
        script = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                script.paths.append(self.path)
                script.send(self, script.models if self.path.endswith("/models") else script.about)

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                reply = script.next(body, dict(self.headers.items()))
                script.send(self, reply)
                script.leave()

            def log_message(self, *_: object) -> None:
                pass

        self._server = QueueingServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def next(self, body: dict[str, Any], headers: Mapping[str, str]) -> Reply:
        with self._lock:
            self.bodies.append(body)
            self.headers.append(headers)
            self._now += 1
            self.most = max(self.most, self._now)
            reply = self.replies[0]
            if self.answer is not None:
                reply = self.answer(body["prompt"] if "prompt" in body else body["messages"][-1]["content"])
            elif len(self.replies) > 1:
                self.replies.pop(0)
        time.sleep(self.pause)
        return reply

    def leave(self) -> None:
        with self._lock:
            self._now -= 1

    @staticmethod
    def send(handler: BaseHTTPRequestHandler, reply: Reply) -> None:
        if reply is None:
            handler.connection.shutdown(socket.SHUT_RDWR)
            return
        if isinstance(reply, Raw):
            handler.send_response(200)
            for name, value in {"connection": "close", **reply.headers}.items():
                handler.send_header(name, value)
            with suppress(OSError):
                handler.end_headers()
                for part in reply.parts:
                    handler.wfile.write(part)
            handler.close_connection = True
            return
        status, body = reply
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        handler.send_response(status)
        for name, value in (("content-type", "application/json"), ("content-length", str(len(content)))):
            handler.send_header(name, value)
        if status in (429, 500):
            handler.send_header("retry-after-ms", "5")
        if 300 <= status < 400:
            handler.send_header("location", body)
        with suppress(OSError):  # the client may have left
            handler.end_headers()
            handler.wfile.write(content)

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def completion(n: int = 1, *, text: str = "an answer", reason: str | None = "stop", **more: Any) -> dict[str, Any]:
    choices = [{"index": index, "text": text, "finish_reason": reason, **more} for index in range(n)]
    return {"id": "c", "choices": choices, "usage": {"prompt_tokens": 7, "completion_tokens": 5 * n}}
