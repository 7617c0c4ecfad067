"""`Call`: a `Request` as the bodies of HTTP requests: one body, or one for each greedy sample."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from esamp.engines.base import SEED_LIMIT, Request
from esamp.engines.checks import refuse_search
from esamp.engines.openai.server import ServerInfo
from esamp.engines.titles import title
from esamp.engines.vllm.params import check_supported, flatten
from esamp.errors import OptionError, PromptError, UnsupportedError
from esamp.methods import registry
from esamp.methods.base import DecodeMethod
from esamp.options import Options
from esamp.sampling import DEFAULT_TOKENS, Sampling

COMPLETIONS, CHAT = "/completions", "/chat/completions"
FOREIGN_SEED_LIMIT = 2**31
"""Limit on seeds for servers other than vLLM, which may store them in 32 bits."""
BEYOND = ("top_k", "min_p", "repetition_penalty")
"""Sampler settings that are not in the API's standard, by their names in vLLM."""


@dataclass(frozen=True)
class Call:
    """One request, ready to be sent."""

    request: Request
    path: str
    bodies: tuple[Mapping[str, Any], ...]
    explores: bool
    """whether a method takes part in decode steps"""

    @property
    def extras(self) -> tuple[str, ...]:
        """Fields that are not in the API's standard."""
        return tuple(name for name in BEYOND if name in self.bodies[0])

    @property
    def size(self) -> int:
        """Samples of each body."""
        return self.request.n // len(self.bodies)


def call(request: Request, info: ServerInfo) -> Call:
    """Prepare a request for a server.

    Args:
        request: the request.
        info: what the server is.

    Raises:
        OptionError: n or an option cannot be sent.
        PromptError: the prompt is empty.
        UnsupportedError: the method cannot act at this server.
    """
    if request.n < 1:
        raise OptionError(f"{title(request)}: n = {request.n} must be at least 1")
    if not request.prompt:
        raise PromptError(f"{title(request)}: the prompt is empty")
    refuse_search(request)
    explores = issubclass(registry.get(request.method), DecodeMethod)
    _check_method(request, info, explores=explores)
    sampling = request.own_sampling
    text = request.prompt
    prompt = {"prompt": text} if isinstance(text, str) else {"messages": [dict(turn) for turn in text]}
    apart = request.n > 1 and sampling.temperature == 0  # vLLM refuses several greedy samples of one request
    group = secrets.token_hex(16) if apart and explores else None
    common: dict[str, Any] = {"model": info.model, **prompt, **_sampler(sampling, info)}
    if explores or info.defaults:
        common["vllm_xargs"] = _xargs(request, info, telemetry=explores, group=group)
    seed = request.own_seed % (SEED_LIMIT if info.vllm else FOREIGN_SEED_LIMIT)
    count = request.n if apart else 1
    bodies = tuple({**common, "n": request.n // count, "seed": seed + index} for index in range(count))
    return Call(request, COMPLETIONS if isinstance(text, str) else CHAT, bodies, explores)


def limit(sampling: Sampling, context: int | None) -> int:
    """Most tokens of a sample. The length of the prompt is unknown here, so half of a small context is left for it."""
    return sampling.max_tokens or min(DEFAULT_TOKENS, (context or 2 * DEFAULT_TOKENS) // 2)


def _sampler(sampling: Sampling, info: ServerInfo) -> dict[str, Any]:
    """The fields of a body for the sampler's settings.

    vLLM gets all of them, as it would take missing ones from the model's ``generation_config.json``.
    """
    neutral, values = Sampling(), dict(sampling)
    beyond = {name: values[name] for name in BEYOND if info.vllm or values[name] != dict(neutral)[name]}
    return {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "max_tokens": limit(sampling, info.context),
        **({"stop": list(sampling.stop)} if sampling.stop else {}),
        **({"return_token_ids": True} if info.vllm else {}),
        **beyond,
    }


def _check_method(request: Request, info: ServerInfo, *, explores: bool) -> None:
    method = registry.get(request.method)
    try:
        check_supported(method)
    except OptionError as error:
        raise UnsupportedError(f"{title(request)}: {error}") from error
    if not explores:
        return
    if info.methods is None:
        raise UnsupportedError(
            f"{title(request)}: method {request.method!r} acts inside the engine, and this server does not "
            "explore: start it with esamp serve, or use a method that only sets the sampler (vanilla, min_p, penalties)"
        )
    missing = sorted(set(request.method.split("+")) - info.methods)
    if missing:
        raise UnsupportedError(f"{title(request)}: this server has no method {missing[0]!r}: install it there")


def _xargs(request: Request, info: ServerInfo, *, telemetry: bool, group: str | None) -> dict[str, Any]:
    """The method and its options: those that are not defaults, or all if the server has defaults of its own."""
    options = request.own_options
    parameters = flatten(request.method, options)
    if info.defaults:
        parameters = {**dict(options), **parameters}
    values = {name: _json_value(name, value, options, info) for name, value in parameters.items()}
    common = {**({"telemetry": 1} if telemetry else {}), **({} if group is None else {"group": group})}
    return {**{name: value for name, value in values.items() if value is not None}, **common}


def _json_value(name: str, value: object, options: Options, info: ServerInfo) -> str | int | float | list[Any] | None:
    """A value for ``vllm_xargs``, which takes texts, numbers and lists of them: booleans become 0 and 1.

    Returns None for an option to leave out: it is None, and so is its default.

    Raises:
        OptionError: the value has another type, or it is None and leaving it out would mean another value.
    """
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, str | int | float):
        return value
    if isinstance(value, tuple | list) and all(isinstance(entry, str | int | float) for entry in value):
        return [int(entry) if isinstance(entry, bool) else entry for entry in value]
    if value is None and type(options).model_fields[name].default is None and name not in info.defaults:
        return None
    raise OptionError(f"option {name!r} = {value!r} cannot be sent to a server: give it a text, a number or a list")
