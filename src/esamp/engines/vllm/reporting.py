"""What both workers share: the check at start, when exploring is set up, and the answers to the front end."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from vllm.config import VllmConfig, set_current_vllm_config
from vllm.v1.worker.worker_base import WorkerBase

from esamp.engines.vllm.installation import Installation, check_engine
from esamp.engines.vllm.settings import SECTION, VLLMSettings


class Reporting(WorkerBase):
    """A worker whose runner explores, and what the front end may ask every rank by ``collective_rpc``."""

    model_runner: Any

    def load_model(self, *args: Any, **kwargs: Any) -> None:
        """Load the model, then set up exploring: outside of the memory that vLLM gives away while the engine sleeps."""
        super().load_model(*args, **kwargs)
        with set_current_vllm_config(self.vllm_config):
            self.model_runner.explore()

    def compile_or_warm_up_model(self) -> Any:
        """Warm up without exploring: vLLM's made-up requests are nobody's, whatever the operator's defaults say."""
        with self._installation.closed():
            return super().compile_or_warm_up_model()

    def esamp_counters(self) -> dict[str, float]:
        """See `Installation.counters`."""
        return self._installation.counters()

    def esamp_telemetry(self, request_id: str) -> Mapping[str, float] | None:
        """See `Installation.telemetry`."""
        return self._installation.telemetry(request_id)

    def esamp_refusal(self, request_id: str) -> str | None:
        """See `Installation.refusal`."""
        return self._installation.refusal(request_id)

    def esamp_trace(self, request_id: str) -> dict[int, Tensor] | None:
        """See `Installation.trace`."""
        return self._installation.trace(request_id)

    @property
    def _installation(self) -> Installation:
        installation: Installation = self.model_runner.esamp
        return installation


def prepare(config: VllmConfig) -> VllmConfig:
    """Refuse early what cannot work, and mark the configuration.

    vLLM keeps compiled models on disk by a hash of it: ours return inner states and must not be mistaken for others.
    """
    check_engine(config)
    settings = VLLMSettings.read(config.additional_config)
    given = config.additional_config if isinstance(config.additional_config, dict) else {}
    config.additional_config = given | {SECTION: settings.model_dump(mode="json")}
    return config
