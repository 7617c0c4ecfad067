"""A `Request` as what is posted: one body, or one for each greedy sample."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from esamp.engines.base import Request
from esamp.engines.checks import refuse_search
from esamp.engines.openai.server import Facts
from esamp.engines.vllm.params import SEED_LIMIT, check_supported, flatten
from esamp.errors import OptionError, PromptError, UnsupportedError
from esamp.methods import registry
from esamp.methods.base import DecodeMethod
from esamp.options import Options
from esamp.sampling import DEFAULT_TOKENS, Sampling

COMPLETIONS, CHAT = "/completions", "/chat/completions"
FOREIGN_SEED_LIMIT = 2**31
"""Seeds for servers other than vLLM are below this: they may store them in 32 bits."""
BEYOND = ("top_k", "min_p", "repetition_penalty")
"""Settings of the sampler that are not in the API's standard, by the names that vLLM gave them."""


@dataclass(frozen=True)
class Call:
    """One request as it goes over the wire."""

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


def call(request: Request, facts: Facts) -> Call:
    """Prepare a request for a server.

    Raises:
        OptionError: n or an option cannot be sent.
        PromptError: the prompt is empty.
        UnsupportedError: the method cannot act at this server.
    """
    if request.n < 1:
        raise OptionError(f"request {request.id!r}: n = {request.n} must be at least 1")
    if not request.prompt:
        raise PromptError(f"request {request.id!r}: the prompt is empty")
    refuse_search(request)
    explores = issubclass(registry.get(request.method), DecodeMethod)
    _check_method(request, facts, explores=explores)
    sampling = request.own_sampling
    text = request.prompt
    prompt = {"prompt": text} if isinstance(text, str) else {"messages": [dict(turn) for turn in text]}
    apart = request.n > 1 and sampling.temperature == 0  # vLLM refuses several greedy samples of one request
    group = secrets.token_hex(16) if apart and explores else None
    common: dict[str, Any] = {"model": facts.model, **prompt, **_sampler(sampling, facts)}
    if explores or facts.defaults:
        common["vllm_xargs"] = _xargs(request, facts, telemetry=explores, group=group)
    seed = request.own_seed % (SEED_LIMIT if facts.vllm else FOREIGN_SEED_LIMIT)
    count = request.n if apart else 1
    bodies = tuple({**common, "n": request.n // count, "seed": seed + index} for index in range(count))
    return Call(request, COMPLETIONS if isinstance(text, str) else CHAT, bodies, explores)


def limit(sampling: Sampling, context: int | None) -> int:
    """Most tokens of a sample. Nobody counts a prompt's tokens here, so half of a small context is left to it."""
    return sampling.max_tokens or min(DEFAULT_TOKENS, (context or 2 * DEFAULT_TOKENS) // 2)


def _sampler(sampling: Sampling, facts: Facts) -> dict[str, Any]:
    """The sampler's settings.

    To vLLM all are sent: what a request leaves out it takes from the model's ``generation_config.json``.
    """
    neutral, values = Sampling(), dict(sampling)
    beyond = {name: values[name] for name in BEYOND if facts.vllm or values[name] != dict(neutral)[name]}
    return {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "max_tokens": limit(sampling, facts.context),
        **({"stop": list(sampling.stop)} if sampling.stop else {}),
        **({"return_token_ids": True} if facts.vllm else {}),
        **beyond,
    }


def _check_method(request: Request, facts: Facts, *, explores: bool) -> None:
    method = registry.get(request.method)
    try:
        check_supported(method)
    except OptionError as error:
        raise UnsupportedError(f"request {request.id!r}: {error}") from error
    if not explores:
        return
    if facts.methods is None:
        raise UnsupportedError(
            f"request {request.id!r}: method {request.method!r} acts inside the engine, and this server is none that "
            "explores: start it with esamp serve, or use one that only sets the sampler (vanilla, min_p, penalties)"
        )
    missing = sorted(set(request.method.split("+")) - facts.methods)
    if missing:
        raise UnsupportedError(f"request {request.id!r}: this server has no method {missing[0]!r}: install it there")


def _xargs(request: Request, facts: Facts, *, telemetry: bool, group: str | None) -> dict[str, Any]:
    """The method and its options: those that say something, or all where the server would fill in its own."""
    options = request.own_options
    asked = flatten(request.method, options)
    if facts.defaults:
        asked = {**dict(options), **asked}
    said = {name: _said(name, value, options, facts) for name, value in asked.items()}
    beside = {**({"telemetry": 1} if telemetry else {}), **({} if group is None else {"group": group})}
    return {**{name: value for name, value in said.items() if value is not None}, **beside}


def _said(name: str, value: object, options: Options, facts: Facts) -> str | int | float | list[Any] | None:
    """A value as ``vllm_xargs`` takes it: texts, numbers and lists of them; a truth is 0 or 1; None is left out.

    Raises:
        OptionError: it is something else, or to leave it out says something else.
    """
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, str | int | float):
        return value
    if isinstance(value, tuple | list) and all(isinstance(each, str | int | float) for each in value):
        return [int(each) if isinstance(each, bool) else each for each in value]
    if value is None and type(options).model_fields[name].default is None and name not in facts.defaults:
        return None
    raise OptionError(f"option {name!r} = {value!r} cannot be sent to a server: give it a text, a number or a list")
