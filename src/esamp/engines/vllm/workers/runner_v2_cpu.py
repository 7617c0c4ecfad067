"""Model Runner V2 on a CPU, which vLLM chooses where Triton has a backend for CPUs."""

from vllm.v1.worker.cpu.model_runner import CPUModelRunner

from esamp.engines.vllm.workers.runner_v2 import ExploringRunnerV2


class CPURunnerV2(ExploringRunnerV2, CPUModelRunner):
    """Both base classes combined; nothing needs to be added."""
