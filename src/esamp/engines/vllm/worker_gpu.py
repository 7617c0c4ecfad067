"""vLLM's GPU worker and its runners, exploring."""

from typing import Any

from vllm.config import VllmConfig
from vllm.v1.worker.gpu_worker import Worker as GPUWorker

from esamp.engines.vllm.reporting import Reporting, prepare
from esamp.engines.vllm.runner import ExploringRunner


class Worker(Reporting, GPUWorker):
    """The GPU worker, with the exploring version of the runner that vLLM would choose."""

    def __init__(self, vllm_config: VllmConfig, *args: Any, **kwargs: Any) -> None:
        """Take vLLM's arguments."""
        super().__init__(prepare(vllm_config), *args, **kwargs)

    def _make_model_runner(self) -> Any:
        """What newer releases of vLLM ask for the runner."""
        if self.use_v2_model_runner:
            from esamp.engines.vllm.runner_v2 import ExploringRunnerV2

            return ExploringRunnerV2(self.vllm_config, self.device)
        return ExploringRunner(self.vllm_config, self.device)

    def init_device(self) -> None:
        """Older ones name it themselves: put ours in its place."""
        super().init_device()
        if "esamp" not in type(self.model_runner).__module__:
            del self.model_runner  # and its buffers, before ours take the same memory again
            self.model_runner = self._make_model_runner()
