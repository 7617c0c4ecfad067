"""vLLM's CPU worker and its runner, exploring."""

# vLLM wants this module before any other of its workers.
from vllm.v1.worker.cpu_worker import CPUWorker  # isort: skip

from typing import Any

from vllm.config import VllmConfig
from vllm.v1.worker.cpu_model_runner import CPUModelRunner

from esamp.engines.vllm.reporting import Reporting, prepare
from esamp.engines.vllm.runner import ExploringRunner


class CPURunner(ExploringRunner, CPUModelRunner):
    """The V1 runner on a CPU."""


class Worker(Reporting, CPUWorker):
    """The CPU worker, with that runner."""

    def __init__(self, vllm_config: VllmConfig, *args: Any, **kwargs: Any) -> None:
        """Take vLLM's arguments."""
        super().__init__(prepare(vllm_config), *args, **kwargs)

    def init_device(self) -> None:
        """Put our runner in the place of the one that vLLM names itself."""
        super().init_device()
        self.model_runner = CPURunner(self.vllm_config, self.device)
