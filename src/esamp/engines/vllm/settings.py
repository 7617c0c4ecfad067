"""`VLLMSettings`: the operator's settings of a vLLM engine, from ``--additional-config '{"esamp": {...}}'``."""

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field

from esamp.errors import OptionError
from esamp.options import Options

SECTION = "esamp"
"""Key of our settings within vLLM's ``additional_config``."""
WORKER_CLASS = "esamp.engines.vllm.worker.Worker"
"""vLLM's ``worker_cls``."""
SCHEDULER_CLASS = "esamp.engines.vllm.scheduler.Scheduler"
"""vLLM's ``scheduler_cls``."""


class VLLMSettings(Options):
    """Capacity, permissions and defaults of Exploratory Sampling in one vLLM engine."""

    slots: int = Field(default=64, ge=1, le=65536)
    """most groups (a request with all its samples is one) that explore at a time; their memory is allocated at start"""
    when_full: Literal["plain", "wait"] = "plain"
    """whether a group for which no slot is free runs as plain sampling, which is reported, or waits for a slot"""
    layers: tuple[int, ...] = Field(default=(1,), min_length=1, max_length=8, strict=False)
    """depths of the residual stream that are kept for methods; requests can only read these"""
    shared: bool = False
    """allow options, such as scope = 'batch', with which requests of different users influence each other"""
    memory: int = Field(default=256, ge=0, le=1 << 20)
    """MiB for the state of groups whose options differ from the defaults"""
    kept: int = Field(default=4096, ge=0, le=1_000_000)
    """number of finished requests whose telemetry stays available"""
    capture: bool = False
    """on a CUDA GPU, replay the kernels of esamp's steps as CUDA graphs, where there are more than two a step"""
    defaults: dict[str, str | int | float | bool] = Field(default={}, strict=False)
    """parameters that apply where a request leaves them out; with a method, every request explores"""

    @classmethod
    def read(cls, additional_config: object) -> Self:
        """Read our section of vLLM's ``additional_config``; without one, all settings have their defaults.

        Raises:
            OptionError: a setting has a wrong name, type or value.
        """
        if not isinstance(additional_config, Mapping):
            return cls()
        section: Any = additional_config.get(SECTION, {})
        if not isinstance(section, Mapping):
            raise OptionError(f"additional_config[{SECTION!r}] = {section!r}: expected a table of settings")
        return cls.parse(section)
