"""Runs `esamp` commands and Python programs in forks of one process that has imported the libraries.

A process of its own spends about four seconds importing PyTorch, transformers and the rest. The pages of docs have
dozens of commands, so they run here in forks; tests/test_cli_generate.py and others start commands as a user does.

    python -m support.forked_commands SOCKET            the server
    python -SEs forked_commands.py SOCKET -m NAME ...   a client: NAME is run as a command with the arguments after it
    python -SEs forked_commands.py SOCKET -c CODE       a client: CODE is run as a program

The client passes on its arguments, environment, working directory, standard input, output and error, and ends with the
exit code of the fork.
"""

import json
import os
import socket
import sys
from contextlib import suppress
from importlib import import_module
from io import FileIO, TextIOWrapper
from pathlib import Path
from typing import Any, NoReturn

MODULES = (
    "esamp.cli.compare_run",
    "esamp.cli.generate_run",
    "esamp.engines.hf.engine",
    "transformers.models.llama.modeling_llama",
    "transformers.models.llama.tokenization_llama",
)
"""Modules that most commands import."""


def run(path: str, words: list[str]) -> int:
    """Let the server at `path` run a command or a program. Returns its exit code."""
    message = json.dumps({"words": words, "folder": str(Path.cwd()), "environment": dict(os.environ)}).encode()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect(path)
        socket.send_fds(client, [len(message).to_bytes(4, "big")], [0, 1, 2])
        client.sendall(message)
        return int(client.recv(16) or b"70")


def serve(path: str) -> None:
    """Import the libraries, listen at `path` and fork for every client."""
    for name in MODULES:
        import_module(name)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(path)
        server.listen()
        while True:
            client, _ = server.accept()
            if os.fork() == 0:
                server.close()
                _answer(client)
            client.close()
            with suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass


def _answer(client: socket.socket) -> None:
    """In a fork: read the message, run it in another fork, and tell the client its exit code."""
    head, streams, _, _ = socket.recv_fds(client, 4, 3)
    length, parts = int.from_bytes(head, "big"), b""
    while len(parts) < length:
        parts += client.recv(length - len(parts))
    child = os.fork()
    if child == 0:
        client.close()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        _become(json.loads(parts))
    for stream in streams:
        os.close(stream)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    client.sendall(str(code if code >= 0 else 128 - code).encode())
    os._exit(0)


def _become(message: dict[str, Any]) -> NoReturn:
    """Run what a client asks for, with its environment and in its folder, and end this process as Python ends."""
    os.environ.clear()
    os.environ.update(message["environment"])
    os.chdir(message["folder"])
    if os.environ.get("PYTHONUNBUFFERED"):  # which Python reads when it starts
        sys.stdout = TextIOWrapper(FileIO(1, "w", closefd=False), sys.stdout.encoding, write_through=True)
    sys.path[:0] = [each for each in os.environ.get("PYTHONPATH", "").split(os.pathsep) if each]
    mode, first, *rest = message["words"]
    if mode == "-m":
        from esamp.cli import main

        assert first == "esamp"
        sys.exit(main(rest))
    sys.argv, sys.path[:0] = ["-c", *rest], [""]
    exec(compile(first, "<string>", "exec"), {"__name__": "__main__"})
    sys.exit()


if __name__ == "__main__":
    if len(sys.argv) == 2:
        serve(sys.argv[1])
    sys.exit(run(sys.argv[1], sys.argv[2:]))
