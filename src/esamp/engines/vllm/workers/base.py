"""`ExploringWorker`: the common base of the CPU and the GPU worker: set-up, and the methods that front ends call."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from typing_extensions import override
from vllm.config import VllmConfig, set_current_vllm_config
from vllm.v1.worker.worker_base import WorkerBase

from esamp.engines.vllm.settings import SECTION, VLLMSettings
from esamp.engines.vllm.workers.attachment import Attachment, check_engine


class ExploringWorker(WorkerBase):
    """A worker whose model runner explores. Methods named ``esamp_...`` are called by ``collective_rpc``."""

    model_runner: Any

    @override
    def load_model(self, *args: Any, **kwargs: Any) -> None:
        super().load_model(*args, **kwargs)
        # Not inside vLLM's own method: memory that is allocated there is released while the engine sleeps.
        with set_current_vllm_config(self.vllm_config):
            self.model_runner.attach_esamp()

    @override
    def compile_or_warm_up_model(self) -> Any:
        # vLLM's dummy requests must not explore, even where the operator's defaults name a method.
        with self._attachment.paused():
            return super().compile_or_warm_up_model()

    def esamp_counters(self) -> dict[str, float]:
        """See `Attachment.counters`."""
        return self._attachment.counters()

    def esamp_telemetry(self, request_id: str) -> Mapping[str, float] | None:
        """See `Attachment.telemetry`."""
        return self._attachment.telemetry(request_id)

    def esamp_refusal(self, request_id: str) -> str | None:
        """See `Attachment.refusal`."""
        return self._attachment.refusal(request_id)

    def esamp_trace(self, request_id: str) -> dict[int, Tensor] | None:
        """See `Attachment.trace`."""
        return self._attachment.trace(request_id)

    @property
    def _attachment(self) -> Attachment:
        attachment: Attachment = self.model_runner.esamp
        return attachment


def prepare(config: VllmConfig) -> VllmConfig:
    """Refuse an unsupported configuration early, and write our settings into it.

    vLLM caches compiled models under a hash of the configuration. With the settings in it, models that return the
    residual stream are not confused with others.
    """
    check_engine(config)
    settings = VLLMSettings.read(config.additional_config)
    given = config.additional_config if isinstance(config.additional_config, dict) else {}
    config.additional_config = given | {SECTION: settings.model_dump(mode="json")}
    return config
