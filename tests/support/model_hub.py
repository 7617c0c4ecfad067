"""A local copy of the Hugging Face Hub that serves one model, and a tiny model to serve."""

import hashlib
import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from esamp.models import embedded_path

REVISION = "1234567890abcdef1234567890abcdef12345678"


def write_tiny_model(folder: Path) -> None:
    """A random Llama with the embedded model's tokenizer."""
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    GenerationConfig(eos_token_id=2).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(embedded_path() / name, folder / name)


@contextmanager
def serving(repository: str, folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Serve `folder` as the model `repository`; yields the address and the list of requested paths."""
    requested: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(repository, folder, requested))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", requested
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(repository: str, folder: Path, requested: list[str]) -> type[BaseHTTPRequestHandler]:
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    info = {"id": repository, "sha": REVISION, "siblings": [{"rfilename": name} for name in files]}
    tree = [{"type": "file", "path": name, "size": len(data), "oid": _oid(data)} for name, data in files.items()]
    documents: dict[str, Any] = {
        f"/api/models/{repository}": info,
        f"/api/models/{repository}/revision/main": info,
        f"/api/models/{repository}/revision/{REVISION}": info,
        f"/api/models/{repository}/tree/{REVISION}": tree,
    }

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            requested.append(path)
            name = path.removeprefix(f"/{repository}/resolve/{REVISION}/")
            if path in documents:
                self._send(json.dumps(documents[path]).encode(), {"Content-Type": "application/json"})
            elif name in files:
                self._send(files[name], {"ETag": f'"{_oid(files[name])}"', "X-Repo-Commit": REVISION})
            else:
                self._send(b"", {"X-Error-Code": "RepoNotFound"}, status=404)

        do_HEAD = do_GET  # noqa: N815  # the base class's name

        def _send(self, data: bytes, headers: dict[str, str], status: int = 200) -> None:
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            """Print nothing."""

    return Handler


def _oid(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()
