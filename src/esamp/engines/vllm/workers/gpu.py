"""vLLM's GPU worker, extended to explore."""

from typing import Any

from typing_extensions import override
from vllm.config import VllmConfig
from vllm.v1.worker.gpu_worker import Worker as GPUWorker

from esamp.engines.vllm.workers.base import ExploringWorker, prepare
from esamp.engines.vllm.workers.runner_v1 import ExploringRunner


class Worker(ExploringWorker, GPUWorker):
    """The GPU worker with an exploring model runner, V1 or V2 as vLLM chooses."""

    def __init__(self, vllm_config: VllmConfig, *args: Any, **kwargs: Any) -> None:
        super().__init__(prepare(vllm_config), *args, **kwargs)

    @override
    def _make_model_runner(self) -> Any:
        """Create the model runner. Newer releases of vLLM call this private method in `init_device`."""
        if self.use_v2_model_runner:
            from esamp.engines.vllm.workers.runner_v2 import ExploringRunnerV2

            return ExploringRunnerV2(self.vllm_config, self.device)
        return ExploringRunner(self.vllm_config, self.device)

    @override
    def init_device(self) -> None:
        super().init_device()
        if "esamp" not in type(self.model_runner).__module__:  # an older vLLM, which creates its own class
            del self.model_runner  # frees its buffers before the new runner allocates the same memory
            self.model_runner = self._make_model_runner()
