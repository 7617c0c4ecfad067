"""What one request asks for, by flat keys in ``SamplingParams.extra_args`` (``vllm_xargs`` over HTTP)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import Field

from esamp.errors import OptionError
from esamp.methods import registry
from esamp.methods.base import DecodeMethod, Method
from esamp.options import Options
from esamp.quoting import shown
from esamp.sampling import Sampling

if TYPE_CHECKING:
    from vllm import SamplingParams

NATIVE = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty")
"""What vLLM's sampler and ours have in common."""
METHOD = "method"
SAMPLES = "esamp_samples"
"""Written at admission: n of the request, which vLLM does not tell the engine about its samples."""
SAMPLER_SET = "esamp_sampler_set"
"""Written by our own engine, which has set the sampler already and knows which settings were given."""
MOST_PARAMETERS, MOST_ENTRIES, MOST_CHARACTERS = 256, 1024, 4096
"""Parameters of a request, entries of a list and characters of a text among them."""
FOREIGN = frozenset({"kv_transfer_params", "ec_transfer_params", "kv_cache_report_mode", SAMPLES, SAMPLER_SET})
"""Keys of others in the same mapping."""

Given = TypeVar("Given", bound=Options)

CHILD = re.compile(r"(\d+)_(.+)", re.DOTALL)
TRUTH = {0: False, 1: True, "0": False, "1": True, "false": False, "true": True}


class RequestOptions(Options):
    """What a request that names a method may say besides the method's own options."""

    group: str | None = Field(None, min_length=16, max_length=256)
    """a name that joins requests with equal options; whoever knows it can join, so let it be random"""
    telemetry: bool = False
    """report in the response what the method did for the request's group"""
    trace: bool = False
    """keep novelty, KL and surprisal of every token, which takes a second projection"""


@dataclass(frozen=True)
class Asked:
    """A request that takes part in decode steps."""

    method: type[DecodeMethod]
    options: Options
    group: str | None = None
    telemetry: bool = False
    trace: bool = False
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
        raise OptionError(f"{METHOD} = {shown(name)}: expected the name of a method: {', '.join(registry.names())}")
    check_size(given)
    if usual.get(METHOD, name) != name:
        usual = {}
    method = registry.get(name)
    check_possible(method)
    options = _read(method.options, _own(usual)).replace(**_plain(method.options, _own(given)))
    request = _read(
        RequestOptions, {key: v for key, v in (usual | given).items() if key in RequestOptions.model_fields}
    )
    if not issubclass(method, DecodeMethod):
        return None
    if request.group is not None and method.one_request:
        raise OptionError(f"method {name!r} works on the samples of one request: leave 'group' out")
    samples = given.get(SAMPLES)
    return Asked(
        method=method,
        options=options,
        group=request.group,
        telemetry=request.telemetry,
        trace=request.trace,
        samples=samples if isinstance(samples, int) and samples > 0 else None,
    )


def check_size(given: Mapping[str, Any]) -> None:
    """Refuse parameters that are too many or too long, before any of them is looked at.

    Raises:
        OptionError: naming the parameter and the limit.
    """
    if len(given) > MOST_PARAMETERS:
        raise OptionError(f"{len(given):,} parameters: a request may have {MOST_PARAMETERS}")
    for name, value in given.items():
        if name in FOREIGN:
            continue
        most = MOST_CHARACTERS if isinstance(value, str) else MOST_ENTRIES
        if isinstance(value, str | list | tuple | dict) and len(value) > most:
            unit = "characters" if isinstance(value, str) else "entries"
            raise OptionError(f"option {shown(name)} has {len(value):,} {unit}: it may have {most:,}")


def check_possible(method: type[Method]) -> None:
    """Refuse a method that acts where vLLM lets nobody act.

    Raises:
        OptionError: saying where it works.
    """
    if method.needs:
        raise OptionError(f"method {method.name!r} needs {min(method.needs)}: use the transformers engine, hf")
    if method.above_engines:
        raise OptionError(
            f"method {method.name!r} makes many requests of its own, so it runs above the engine and not in it: "
            "esamp generate --engine vllm, or esamp.search"
        )


def check_defaults(defaults: Mapping[str, Any]) -> None:
    """Refuse default parameters that would do nothing: vLLM's sampler is set when a request comes in, by the request.

    Raises:
        OptionError: the method of the defaults sets the sampler; says where that can be done.
    """
    name = defaults.get(METHOD)
    if not isinstance(name, str):
        return
    method = registry.get(name)
    own = {key: value for key, value in defaults.items() if key in method.options.model_fields}
    plain = Sampling()
    if not issubclass(method, DecodeMethod) or method.sampler(_read(method.options, own), plain) != plain:
        raise OptionError(
            f"setting 'defaults': method {name!r} sets vLLM's own sampler, which only a request can: leave it out and "
            "use vLLM's --override-generation-config"
        )


def settings(params: "SamplingParams") -> Sampling:
    """What vLLM's parameters say about the ordinary sampler.

    vLLM does not tell a setting that was given from one that was not, so a neutral value counts as unset.
    """
    stop = params.stop or []
    values: dict[str, Any] = dict(
        temperature=params.temperature,
        top_k=max(params.top_k, 0),
        top_p=params.top_p,
        min_p=params.min_p,
        repetition_penalty=params.repetition_penalty,
        presence_penalty=params.presence_penalty,
        frequency_penalty=params.frequency_penalty,
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
    )
    neutral = dict(Sampling())
    return Sampling(**{name: value for name, value in values.items() if value != neutral[name]})


def apply_sampler(params: "SamplingParams") -> None:
    """Set vLLM's sampler to what the request's method makes of it, in place. Doing it twice changes nothing more.

    Raises:
        OptionError: the method makes no sense together with the request's other parameters.
    """
    extra_args = params.extra_args or {}
    name = extra_args.get(METHOD)
    if not isinstance(name, str) or SAMPLER_SET in extra_args:
        return
    method = registry.get(name)
    own = {key: value for key, value in extra_args.items() if key in method.options.model_fields}
    before = settings(params)
    after = method.sampler(_read(method.options, own), before)
    for field in NATIVE:
        value = dict(after)[field]
        if value != dict(before)[field]:
            setattr(params, field, value)


def flat(name: str, options: Options, asked: RequestOptions | None = None) -> dict[str, Any]:
    """What `parse` reads as method `name` with these `options`: what was set, and what is not as it is by default."""
    return {METHOD: name, **_told(options), **({} if asked is None else _told(asked))}


def member(request_id: str, samples: int | None) -> Member:
    """Take apart vLLM's ``<index>_<parent>``, the id of one of several samples."""
    found = CHILD.fullmatch(request_id) if samples != 1 else None
    return Member(found[2], int(found[1])) if found else Member(request_id, 0)


def _own(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a request's parameters that are the method's own options, as far as their names tell."""
    others = FOREIGN | {METHOD} | set(RequestOptions.model_fields)
    return {key: value for key, value in parameters.items() if key not in others}


def _read(options: type[Given], values: Mapping[str, Any]) -> Given:
    return options.parse(_plain(options, values))


def _plain(options: type[Options], values: Mapping[str, Any]) -> dict[str, Any]:
    """`vllm_xargs` has no booleans, so 0 and 1 or their names stand for them."""
    plain = {}
    for key, value in values.items():
        field = options.model_fields.get(key)
        truth = field is not None and field.annotation is bool and isinstance(value, str | int)
        plain[key] = TRUTH.get(value, value) if truth else value
    return plain


def _told(options: Options) -> dict[str, Any]:
    usual = {name: info.get_default(call_default_factory=True) for name, info in type(options).model_fields.items()}
    return {name: value for name, value in options if name in options.model_fields_set or value != usual[name]}
