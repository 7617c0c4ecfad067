"""vLLM's CPU worker and its runners, exploring."""

# vLLM wants this module before any other of its workers.
from vllm.v1.worker.cpu_worker import CPUWorker  # isort: skip

from typing import Any

from vllm.config import VllmConfig
from vllm.v1.worker.cpu_model_runner import CPUModelRunner

from esamp.engines.vllm.reporting import Reporting, prepare
from esamp.engines.vllm.runner import ExploringRunner


class CPURunner(ExploringRunner, CPUModelRunner):
    """The V1 runner on a CPU.

    A row that has only part of its prompt draws a token that nobody wants. vLLM takes the draw back by the generator's
    offset, which only those of a GPU have: here a seed and a prompt in parts would end the engine. So we take it back.
    """

    def _sample(self, *args: Any, **kwargs: Any) -> Any:
        """Sample, and put the generators of unwanted draws back."""
        drawn = [generator for row, generator in self.input_batch.generators.items() if self._unwanted(row)]
        before = [generator.get_state() for generator in drawn]
        output = super()._sample(*args, **kwargs)
        for generator, state in zip(drawn, before, strict=True):
            generator.set_state(state)
        return output

    def _bookkeeping_sync(self, *args: Any, **kwargs: Any) -> Any:
        """Keep those generators from vLLM meanwhile."""
        every = self.input_batch.generators
        self.input_batch.generators = {row: each for row, each in every.items() if not self._unwanted(row)}
        try:
            return super()._bookkeeping_sync(*args, **kwargs)
        finally:
            self.input_batch.generators = every

    def _unwanted(self, row: int) -> bool:
        return bool(self.discard_request_mask.np[row])


class Worker(Reporting, CPUWorker):
    """The CPU worker, with those runners."""

    def __init__(self, vllm_config: VllmConfig, *args: Any, **kwargs: Any) -> None:
        """Take vLLM's arguments."""
        super().__init__(prepare(vllm_config), *args, **kwargs)

    def init_device(self) -> None:
        """Put our runner in the place of the one that vLLM names itself."""
        super().init_device()
        del self.model_runner
        self.model_runner = self._runner()(self.vllm_config, self.device)

    def _runner(self) -> type:
        if not self.use_v2_model_runner:
            return CPURunner
        from esamp.engines.vllm.runner_v2_cpu import CPURunnerV2  # it needs Triton

        return CPURunnerV2
