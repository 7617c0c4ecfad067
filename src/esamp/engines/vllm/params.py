"""What one request asks for, by flat keys in ``SamplingParams.extra_args`` (``vllm_xargs`` over HTTP)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from esamp.errors import OptionError
from esamp.methods import registry
from esamp.methods.base import DecodeMethod
from esamp.options import Options

METHOD, GROUP, TELEMETRY, TRACE = "method", "group", "telemetry", "trace"
SAMPLES = "esamp_samples"
"""Written at admission: n of the request, which vLLM does not tell the engine about its samples."""
FOREIGN = frozenset({"kv_transfer_params", "ec_transfer_params", "kv_cache_report_mode", SAMPLES})
"""Keys of others in the same mapping."""
SHORTEST_GROUP, LONGEST_GROUP = 16, 256

CHILD = re.compile(r"(\d+)_(.+)", re.DOTALL)
TRUTH = {0: False, 1: True, "0": False, "1": True, "false": False, "true": True}


@dataclass(frozen=True)
class Asked:
    """A request that takes part in decode steps."""

    method: type[DecodeMethod]
    options: Options
    group: str | None = None
    """a name that joins requests; None for a group of the request's own"""
    telemetry: bool = False
    """report what the method did with the response"""
    trace: bool = False
    """keep measurements of every token"""
    samples: int | None = None
    """how many samples the request has; None if it did not pass our admission"""


@dataclass(frozen=True)
class Member:
    """Which sample of which request an engine's request id stands for."""

    parent: str
    index: int


def parse(extra_args: Mapping[str, Any] | None, defaults: Mapping[str, Any] | None = None) -> Asked | None:
    """Read and check what a request asks for; None if it wants no method that takes part in decode steps.

    Without a method the other keys are none of our business: they may be another extension's.

    Options that the request does not give come from `defaults` if those are of the same method.

    Raises:
        OptionError: an unknown method or option, a value out of range, or a group name that could be guessed.
    """
    given = {} if extra_args is None else dict(extra_args)
    usual = {} if defaults is None else dict(defaults)
    name = given.get(METHOD, usual.get(METHOD))
    if name is None:
        return None
    if not isinstance(name, str):
        raise OptionError(f"{METHOD} = {name!r}: expected the name of a method, one of {', '.join(registry.names())}")
    merged = given if usual.get(METHOD, name) != name else usual | given
    method = registry.get(name)
    own = {key: value for key, value in merged.items() if key not in FOREIGN | {METHOD, GROUP, TELEMETRY, TRACE}}
    options = method.options.parse({key: _plain(method.options, key, value) for key, value in own.items()})
    if not issubclass(method, DecodeMethod):
        return None
    samples = given.get(SAMPLES)
    return Asked(
        method=method,
        options=options,
        group=_group(merged.get(GROUP)),
        telemetry=_flag(TELEMETRY, merged.get(TELEMETRY, False)),
        trace=_flag(TRACE, merged.get(TRACE, False)),
        samples=samples if isinstance(samples, int) and samples > 0 else None,
    )


def member(request_id: str, samples: int | None) -> Member:
    """Take apart vLLM's ``<index>_<parent>``, the id of one of several samples."""
    found = CHILD.fullmatch(request_id) if samples != 1 else None
    return Member(found[2], int(found[1])) if found else Member(request_id, 0)


def _plain(options: type[Options], key: str, value: Any) -> Any:
    """JSON parameters have no booleans in ``vllm_xargs``: 0 and 1, or their names, stand for them."""
    field = options.model_fields.get(key)
    if field is not None and field.annotation is bool and isinstance(value, str | int):
        return TRUTH.get(value, value)
    return value


def _flag(key: str, value: Any) -> bool:
    chosen = TRUTH.get(value) if isinstance(value, str | int) else None
    if chosen is None:
        raise OptionError(f"{key} = {value!r}: expected true or false")
    return chosen


def _group(value: Any) -> str | None:
    if value is None:
        return None
    if not (isinstance(value, str) and SHORTEST_GROUP <= len(value) <= LONGEST_GROUP):
        raise OptionError(
            f"{GROUP} = {str(value)[:80]!r}: expected a text of {SHORTEST_GROUP} to {LONGEST_GROUP} characters; "
            "whoever knows it can join the group, so let it be random"
        )
    return value
