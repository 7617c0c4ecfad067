"""Parses and checks a request's parameters: flat keys in ``SamplingParams.extra_args``, or ``vllm_xargs`` over HTTP."""

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

SAMPLER_FIELDS = (
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
)
"""Settings that `Sampling` and vLLM's ``SamplingParams`` have in common."""
METHOD = "method"
SAMPLES = "esamp_samples"
"""Written at admission: n of the request, which vLLM does not pass on with its samples."""
SAMPLER_SET = "esamp_sampler_set"
"""Written by `VLLMEngine`, which has already applied the method's sampler settings."""
MAX_PARAMETERS, MAX_ENTRIES, MAX_CHARACTERS = 256, 1024, 4096
"""Limits on the parameters of a request, the entries of a list and the characters of a text among them."""
FOREIGN = frozenset({"kv_transfer_params", "ec_transfer_params", "kv_cache_report_mode", SAMPLES, SAMPLER_SET})
"""Keys in the same mapping that are no options: vLLM's own, and those that are written at admission."""

AnyOptions = TypeVar("AnyOptions", bound=Options)

SAMPLE_ID = re.compile(r"(\d+)_(.+)", re.DOTALL)
BOOLEANS = {0: False, 1: True, "0": False, "1": True, "false": False, "true": True}


class RequestOptions(Options):
    """What a request that names a method can give besides the method's own options."""

    group: str | None = Field(default=None, min_length=16, max_length=256)
    """a name that joins requests with equal options; anyone who knows it can join, so use a random one"""
    telemetry: bool = False
    """report in the response what the method did for the request's group"""
    trace: bool = False
    """record novelty, KL and surprisal of every token, which takes a second projection"""


@dataclass(frozen=True)
class ParsedRequest:
    """The parsed parameters of a request whose method takes part in decode steps."""

    method: type[DecodeMethod]
    options: Options
    group: str | None = None
    telemetry: bool = False
    trace: bool = False
    samples: int | None = None
    """n of the request; None if it did not pass our admission"""


@dataclass(frozen=True)
class SampleId:
    """The request that a sample belongs to, and the sample's index in it."""

    parent: str
    index: int


def parse(extra_args: Mapping[str, Any] | None, defaults: Mapping[str, Any] | None = None) -> ParsedRequest | None:
    """Read and check a request's parameters; None if it names no method that takes part in decode steps.

    Without a method the other keys are ignored: they may belong to another extension of vLLM.

    Options that the request leaves out come from `defaults`, if those are for the same method; without a method, if it
    has all of these options.

    Raises:
        OptionError: an unknown method or option, a value out of range, or a group name that could be guessed.
    """
    given = {} if extra_args is None else dict(extra_args)
    default = {} if defaults is None else dict(defaults)
    name = given.get(METHOD, default.get(METHOD))
    if name is None:
        return None
    if not isinstance(name, str):
        raise OptionError(f"{METHOD} = {shown(name)}: expected the name of a method: {', '.join(registry.names())}")
    check_size(given)
    if default.get(METHOD, name) != name:
        default = {}
    method = registry.get(name)
    check_supported(method)
    if not _method_options(default).keys() <= method.options.model_fields.keys() and METHOD not in default:
        default = {key: value for key, value in default.items() if key in RequestOptions.model_fields}
    options = _parse_as(method.options, _method_options(default)).replace(
        **_with_booleans(method.options, _method_options(given))
    )
    common = _parse_as(
        RequestOptions, {key: v for key, v in (default | given).items() if key in RequestOptions.model_fields}
    )
    if not issubclass(method, DecodeMethod):
        return None
    if common.group is not None and method.one_request:
        raise OptionError(f"method {name!r} works on the samples of one request: leave 'group' out")
    samples = given.get(SAMPLES)
    return ParsedRequest(
        method=method,
        options=options,
        group=common.group,
        telemetry=common.telemetry,
        trace=common.trace,
        samples=samples if isinstance(samples, int) and samples > 0 else None,
    )


def check_size(given: Mapping[str, Any]) -> None:
    """Refuse parameters that are too many or too long, before any of them is parsed.

    Raises:
        OptionError: naming the parameter and the limit.
    """
    if len(given) > MAX_PARAMETERS:
        raise OptionError(f"{len(given):,} parameters: a request may have {MAX_PARAMETERS}")
    for name, value in given.items():
        if name in FOREIGN:
            continue
        most = MAX_CHARACTERS if isinstance(value, str) else MAX_ENTRIES
        if isinstance(value, str | list | tuple | dict) and len(value) > most:
            unit = "characters" if isinstance(value, str) else "entries"
            raise OptionError(f"option {shown(name)} has {len(value):,} {unit}: it may have {most:,}")


def check_supported(method: type[Method]) -> None:
    """Refuse a method that cannot act inside vLLM.

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
    """Refuse default parameters that would have no effect: only a request itself can set vLLM's sampler.

    Raises:
        OptionError: the default method sets the sampler; says where that can be done instead.
    """
    name = defaults.get(METHOD)
    if not isinstance(name, str):
        return
    method = registry.get(name)
    own = {key: value for key, value in defaults.items() if key in method.options.model_fields}
    neutral = Sampling()
    if not issubclass(method, DecodeMethod) or method.sampler(_parse_as(method.options, own), neutral) != neutral:
        raise OptionError(
            f"setting 'defaults': method {name!r} sets vLLM's own sampler, which only a request can do: leave it out "
            "and use vLLM's --override-generation-config"
        )


def sampling_of(params: "SamplingParams") -> Sampling:
    """The settings of the ordinary sampler in vLLM's parameters.

    vLLM does not distinguish a setting that was given from one that was not, so a neutral value counts as unset.
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
    """Change vLLM's sampler as the request's method requires, in place. Applying it again changes nothing more.

    Raises:
        OptionError: the method cannot be combined with the request's other parameters.
    """
    extra_args = params.extra_args or {}
    name = extra_args.get(METHOD)
    if not isinstance(name, str) or SAMPLER_SET in extra_args:
        return
    method = registry.get(name)
    own = {key: value for key, value in extra_args.items() if key in method.options.model_fields}
    before = sampling_of(params)
    after = method.sampler(_parse_as(method.options, own), before)
    for field in SAMPLER_FIELDS:
        value = dict(after)[field]
        if value != dict(before)[field]:
            setattr(params, field, value)


def flatten(name: str, options: Options, common: RequestOptions | None = None) -> dict[str, Any]:
    """The parameters that `parse` reads as method `name` with these `options`. Unset defaults are left out."""
    return {METHOD: name, **_set_values(options), **({} if common is None else _set_values(common))}


def sample_id(request_id: str, samples: int | None) -> SampleId:
    """Parse the engine's request id: vLLM calls each of several samples ``<index>_<parent>``.

    Args:
        request_id: the engine's id.
        samples: n of the request if it is known; with n = 1 the id has no index, whatever it looks like.
    """
    match = SAMPLE_ID.fullmatch(request_id) if samples != 1 else None
    return SampleId(match[2], int(match[1])) if match else SampleId(request_id, 0)


def _method_options(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that are options of the method, or unknown ones."""
    others = FOREIGN | {METHOD} | set(RequestOptions.model_fields)
    return {key: value for key, value in parameters.items() if key not in others}


def _parse_as(options: type[AnyOptions], values: Mapping[str, Any]) -> AnyOptions:
    return options.parse(_with_booleans(options, values))


def _with_booleans(options: type[Options], values: Mapping[str, Any]) -> dict[str, Any]:
    """Convert 0, 1 and the names of booleans, because `vllm_xargs` has none."""
    converted = {}
    for key, value in values.items():
        field = options.model_fields.get(key)
        boolean = field is not None and field.annotation is bool and isinstance(value, str | int)
        converted[key] = BOOLEANS.get(value, value) if boolean else value
    return converted


def _set_values(options: Options) -> dict[str, Any]:
    """The options that were set explicitly or differ from their defaults."""
    default = {name: info.get_default(call_default_factory=True) for name, info in type(options).model_fields.items()}
    return {name: value for name, value in options if name in options.model_fields_set or value != default[name]}
