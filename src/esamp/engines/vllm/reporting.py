"""What both workers share: the check at start, and the answers to the front end."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from vllm.config import VllmConfig

from esamp.engines.vllm.installation import Installation, check_engine
from esamp.engines.vllm.settings import SECTION, VLLMSettings


class Reporting:
    """What the front end may ask every rank by ``collective_rpc``."""

    model_runner: Any

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
