"""`VLLMSettings`: what the operator of a vLLM engine decides, in ``--additional-config '{"esamp": {...}}'``."""

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field

from esamp.errors import OptionError
from esamp.options import Options

SECTION = "esamp"
"""Key of our settings within vLLM's ``additional_config``."""


class VLLMSettings(Options):
    """Capacity, permissions and defaults of Exploratory Sampling in one vLLM engine."""

    slots: int = Field(64, ge=1, le=65536)
    """groups (requests with all their samples) that explore at a time; memory for as many is taken at start"""
    when_full: Literal["plain", "wait"] = "plain"
    """a group that finds no free slot runs as plain sampling and says so, or waits for one"""
    layers: tuple[int, ...] = Field((1,), min_length=1, max_length=8, strict=False)
    """depths of the residual stream that are kept for methods; requests can choose among these"""
    shared: bool = False
    """allow scope = 'batch', where requests of different users influence each other"""
    memory: int = Field(256, ge=0, le=1 << 20)
    """MiB for groups whose options need other state than the defaults'"""
    kept: int = Field(4096, ge=0, le=1_000_000)
    """ended groups whose telemetry can still be asked for"""
    defaults: dict[str, str | int | float | bool] = Field({}, strict=False)
    """request parameters for requests that give none: a method makes every request explore"""

    @classmethod
    def read(cls, additional_config: object) -> Self:
        """Our section of vLLM's ``additional_config``; all defaults without one.

        Raises:
            OptionError: a setting has a wrong name, type or value.
        """
        if not isinstance(additional_config, Mapping):
            return cls()
        section: Any = additional_config.get(SECTION, {})
        if not isinstance(section, Mapping):
            raise OptionError(f"additional_config[{SECTION!r}] = {section!r}: expected a table of settings")
        return cls.parse(section)
