"""A real `esamp serve` on the embedded model, in a process of its own."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

START_TIMEOUT = 300.0
"""Seconds to wait for the server to start, on a busy machine."""


@contextmanager
def serving(log: Path, *flags: str, context: int = 512) -> Iterator[str]:
    """The address of a server with two slots and a `context` of so many tokens, which is stopped at the end.

    Args:
        log: file for what the server prints.
        *flags: of `esamp serve`, in addition to those for a quick start.
        context: most tokens of a sequence.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    vllm = {"host": "127.0.0.1", "port": port, "dtype": "float32", "max-model-len": context}
    quick = ["--slots", "2", "--enforce-eager", *(part for name, of in vllm.items() for part in (f"--{name}", str(of)))]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
    command = [sys.executable, "-m", "esamp.cli", "serve", *quick, *flags]
    address = f"http://127.0.0.1:{port}"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            end = time.monotonic() + START_TIMEOUT
            while not _answers(f"{address}/health"):
                assert process.poll() is None, log.read_text()[-4000:]
                assert time.monotonic() < end, log.read_text()[-4000:]
                time.sleep(0.2)
            yield address
            process.send_signal(signal.SIGTERM)  # vLLM has replaced the process of the command
            process.wait(30)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
