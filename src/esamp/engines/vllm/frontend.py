"""What an API server knows of its engine: our settings, what it may allow, and how to ask the workers."""

import asyncio
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from esamp.engines.vllm import body as bodies
from esamp.engines.vllm.launch import CLASSES
from esamp.engines.vllm.params import METHOD, Asked, parse
from esamp.engines.vllm.settings import VLLMSettings
from esamp.errors import OptionError
from esamp.quoting import shown

logger = logging.getLogger("vllm.esamp")  # vLLM shows what its own loggers say

PATIENCE = 10.0
"""Seconds to wait for the workers, who answer between two steps."""
XARGS = "vllm_xargs"
MOST_SAMPLES = 65_536
"""Samples of a request; vLLM has a limit of its own, 16,384 by default."""
MENTION = re.compile(rb"vllm_xargs|\\u00[567]|\x00")
"""What a JSON text with that key must hold: the key, one of its letters escaped, or the zeros of UTF-16."""


@dataclass(frozen=True)
class Exploring:
    """A request that explores, as its body says."""

    asked: Asked
    prompts: int
    """how many prompts it has; each is a group, unless the request names one"""


@dataclass(frozen=True)
class FrontEnd:
    """An API server's side of one engine, or of several data-parallel ones."""

    client: Any
    """vLLM's ``EngineClient``"""
    settings: VLLMSettings
    explores: bool
    """whether its workers can explore"""
    waves: bool
    """whether its scheduler knows waves"""

    @classmethod
    def of(cls, app: Any) -> "FrontEnd":
        """The engine of a running vLLM application.

        Raises:
            OptionError: our section of ``additional_config`` is wrong.
        """
        client, config = app.state.engine_client, app.state.vllm_config
        return cls(
            client=client,
            settings=VLLMSettings.read(config.additional_config),
            explores=not _is_vllms_own(config.parallel_config.worker_cls),
            waves=not _is_vllms_own(config.scheduler_config.scheduler_cls),
        )

    @property
    def model(self) -> str:
        """Name of the model, as vLLM's metrics have it."""
        return str(self.client.vllm_config.model_config.served_model_name)

    @property
    def engines(self) -> int:
        """How many data-parallel engines the API server spreads requests over."""
        return len(self.client.engine_core.core_engines)

    def examine(self, body: bytes) -> Exploring | None:
        """Read what a request asks of us; None if it does not explore, or is none that vLLM accepts.

        Whatever the body, the work is a few milliseconds for each MB.

        Raises:
            OptionError: a bad option, one that the operator does not allow, or a body of too many parts.
        """
        if METHOD not in self.settings.defaults and not MENTION.search(body):
            return None
        request = bodies.read(body)
        given = request.get(XARGS) if isinstance(request, dict) else ()
        if not (given is None or isinstance(given, dict)):
            return None
        asked = parse(given, self.settings.defaults)
        if asked is None:
            return None
        self._allow(asked, request)
        return Exploring(asked, _prompts(request))

    async def ask(self, method: str, *args: str) -> list[Any]:
        """Have the workers run `method`: the answer of rank 0 of each engine. Empty, with a warning, if that fails."""
        question = asyncio.ensure_future(self._every_engine(method, args))
        try:
            done, _ = await asyncio.wait({question}, timeout=PATIENCE)
        finally:  # out of patience, or the client has left
            question.cancel()
        if not done:
            logger.warning("No answer to %s within %.0f s", method, PATIENCE)
            return []
        error = question.exception()
        if error is not None:
            logger.warning("No answer to %s: %s", method, error)
            return []
        return question.result()

    async def _every_engine(self, method: str, args: tuple[str, ...]) -> list[Any]:
        """vLLM's own ``collective_rpc`` asks all data-parallel engines and returns the answers of the first."""
        core = self.client.engine_core
        if self.engines == 1:
            return [(await self.client.collective_rpc(method, args=args))[0]]
        call = ("collective_rpc", method, None, args, None)
        answers = await asyncio.gather(*(core._call_utility_async(*call, engine=each) for each in core.core_engines))
        return [ranks[0] for ranks in answers]

    def _allow(self, asked: Asked, request: Mapping[str, Any]) -> None:
        name, options, samples = asked.method.name, asked.options, request.get("n")
        if isinstance(samples, int) and samples > MOST_SAMPLES:
            raise OptionError(f"n = {shown(samples)}: a request that explores may have {MOST_SAMPLES:,} samples")
        if not self.explores:
            raise OptionError(
                f"{METHOD} = {name!r}: the workers of this server do not explore; start it with esamp serve, or with "
                f"--worker-cls {CLASSES['--worker-cls']}"
            )
        if request.get("use_beam_search"):
            raise OptionError(f"{METHOD} = {name!r}: beam search does not sample, so nothing can be explored")
        if asked.method.crosses_requests(options) and not self.settings.shared:
            raise OptionError(
                f"{METHOD} = {name!r} with these options (scope = 'batch') lets requests of different users influence "
                "each other, which the operator of this server did not allow (--shared)"
            )
        missing = sorted(set(asked.method.layers(options)) - set(self.settings.layers))
        if missing:
            kept = ", ".join(map(str, self.settings.layers))
            raise OptionError(f"layer {missing[0]} is not kept by this server, which was started with --layers {kept}")
        waves = len(asked.method.waves(options, samples)) if isinstance(samples, int) and samples > 1 else 1
        if waves > 1 and not self.waves:
            raise OptionError(
                f"waves = {waves}: the scheduler of this server starts all samples together; ask for waves = 1, or "
                f"start the server with esamp serve, or with --scheduler-cls {CLASSES['--scheduler-cls']}"
            )


def _is_vllms_own(given: object) -> bool:
    """Whether a class in vLLM's configuration (a dotted name, a class or None) is one that came with vLLM."""
    name = given if isinstance(given, str) else given.__module__ if isinstance(given, type) else "auto"
    return name == "auto" or name.startswith("vllm.")


def _prompts(request: Mapping[str, Any]) -> int:
    """How many prompts a completion request has; token ids are one prompt."""
    prompt = request.get("prompt")
    if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int):
        return len(prompt)
    return 1
