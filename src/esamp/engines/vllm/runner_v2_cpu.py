"""The V2 runner on a CPU, which vLLM chooses where Triton has a backend for CPUs."""

from vllm.v1.worker.cpu.model_runner import CPUModelRunner

from esamp.engines.vllm.runner_v2 import ExploringRunnerV2


class CPURunnerV2(ExploringRunnerV2, CPUModelRunner):
    """Both at once: there is nothing to add."""
