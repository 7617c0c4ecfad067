"""vLLM's CPU worker and its V1 model runner, extended to explore."""

# vLLM requires that this module is imported before any other of its workers.
from vllm.v1.worker.cpu_worker import CPUWorker  # isort: skip

from typing import Any

from typing_extensions import override
from vllm.config import VllmConfig
from vllm.v1.worker.cpu_model_runner import CPUModelRunner

from esamp.engines.vllm.workers.base import ExploringWorker, prepare
from esamp.engines.vllm.workers.runner_v1 import ExploringRunner


class CPURunner(ExploringRunner, CPUModelRunner):
    """The V1 model runner on a CPU.

    Chunked prefill samples a token that is discarded. vLLM then resets the request's generator by its offset, but only
    generators of a GPU have one: on a CPU a seed together with chunked prefill would end the engine. Overrides of the
    private methods ``_sample``, which draws, and ``_bookkeeping_sync``, which resets, therefore restore those
    generators and hide them from vLLM.
    """

    @override
    def _sample(self, *args: Any, **kwargs: Any) -> Any:
        generators = [generator for row, generator in self.input_batch.generators.items() if self._discards(row)]
        states = [generator.get_state() for generator in generators]
        output = super()._sample(*args, **kwargs)
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
        return output

    @override
    def _bookkeeping_sync(self, *args: Any, **kwargs: Any) -> Any:
        generators = self.input_batch.generators
        self.input_batch.generators = {
            row: generator for row, generator in generators.items() if not self._discards(row)
        }
        try:
            return super()._bookkeeping_sync(*args, **kwargs)
        finally:
            self.input_batch.generators = generators

    def _discards(self, row: int) -> bool:
        """Whether the token that is sampled for this row is discarded."""
        return bool(self.discard_request_mask.np[row])


class Worker(ExploringWorker, CPUWorker):
    """The CPU worker with an exploring model runner."""

    def __init__(self, vllm_config: VllmConfig, *args: Any, **kwargs: Any) -> None:
        super().__init__(prepare(vllm_config), *args, **kwargs)

    @override
    def init_device(self) -> None:
        super().init_device()  # creates a model runner of vLLM's own class
        del self.model_runner
        self.model_runner = self._runner_class()(self.vllm_config, self.device)

    def _runner_class(self) -> type:
        if not self.use_v2_model_runner:
            return CPURunner
        from esamp.engines.vllm.workers.runner_v2_cpu import CPURunnerV2  # needs Triton

        return CPURunnerV2
