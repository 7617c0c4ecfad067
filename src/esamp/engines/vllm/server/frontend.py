"""`FrontEnd`: the API server's access to its engine: our settings, the requests that they allow, calls of workers."""

import asyncio
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.datastructures import Headers

from esamp.engines.vllm.params import METHOD, ParsedRequest, parse
from esamp.engines.vllm.server import body as json_body
from esamp.engines.vllm.server import grouping
from esamp.engines.vllm.settings import SCHEDULER_CLASS, WORKER_CLASS, VLLMSettings
from esamp.errors import OptionError
from esamp.quoting import shown

logger = logging.getLogger("vllm.esamp")  # a child of vLLM's logger, so that vLLM's handlers show its messages

TIMEOUT = 10.0
"""Seconds to wait for the workers, which answer between two steps."""
XARGS = "vllm_xargs"
MAX_SAMPLES = 65_536
"""Limit on the samples of a request; vLLM has its own, 16,384 by default."""
MAY_HAVE_XARGS = re.compile(rb"vllm_xargs|\\u00[567]|\x00")
"""Matches any JSON text with that key: the key itself, one of its letters escaped, or the zeros of UTF-16."""


@dataclass(frozen=True)
class ExploringRequest:
    """The body of a request that explores."""

    parsed: ParsedRequest
    prompts: int
    """number of prompts; each has its own group, unless the request names one"""
    changed: bytes | None = field(default=None, repr=False)
    """the body that vLLM reads in place of the client's, with the group that a header names; None without the header"""


@dataclass(frozen=True)
class FrontEnd:
    """The API server's access to its engine, or to several data-parallel ones."""

    client: Any
    """vLLM's ``EngineClient``"""
    settings: VLLMSettings
    explores: bool
    """whether its workers can explore"""
    waves: bool
    """whether its scheduler can start waves"""

    @classmethod
    def of(cls, app: Any) -> "FrontEnd":
        """Look up the engine of a running vLLM application.

        Raises:
            OptionError: our section of ``additional_config`` is wrong.
        """
        client, config = app.state.engine_client, app.state.vllm_config
        return cls(
            client=client,
            settings=VLLMSettings.read(config.additional_config),
            explores=not _is_from_vllm(config.parallel_config.worker_cls),
            waves=not _is_from_vllm(config.scheduler_config.scheduler_cls),
        )

    @property
    def model(self) -> str:
        """The model's name in vLLM's metrics."""
        return str(self.client.vllm_config.model_config.served_model_name)

    @property
    def engines(self) -> int:
        """Number of data-parallel engines that the API server distributes requests over."""
        return len(self.client.engine_core.core_engines)

    def examine(self, body: bytes, headers: Headers | None = None) -> ExploringRequest | None:
        """Parse and check a request's body; None if it does not explore, or if vLLM will refuse it.

        Any body takes a few milliseconds per MB. The request's `headers` may name its group.

        Raises:
            OptionError: a wrong option, one that the operator does not allow, or a body of too many parts.
        """
        if METHOD not in self.settings.defaults and not MAY_HAVE_XARGS.search(body):
            return None
        request = json_body.read(body)
        given = request.get(XARGS) if isinstance(request, dict) else ()
        if not (given is None or isinstance(given, dict)):
            return None
        parsed = parse(given, self.settings.defaults)
        if parsed is None:
            return None
        self._check(parsed, request)
        prompts = _count_prompts(request)
        try:
            changed = None if headers is None else grouping.grouped(request, XARGS, headers, prompts)
            encoded = None if changed is None else json.dumps(changed).encode()
        except RecursionError:  # nested almost as deeply as can be parsed
            raise OptionError("the body is nested too deeply for the header X-ESamp-Group") from None
        if changed is not None:
            parsed = parse(changed[XARGS], self.settings.defaults) or parsed
        return ExploringRequest(parsed, prompts, encoded)

    async def call_workers(self, method: str, *args: str) -> list[Any]:
        """Call a method of the workers. Returns the result of rank 0 of each engine; nothing if that fails.

        A failure is logged as a warning.
        """
        call = asyncio.ensure_future(self._call_engines(method, args))
        try:
            done, _ = await asyncio.wait({call}, timeout=TIMEOUT)
        finally:  # after a timeout, or when the client has disconnected
            call.cancel()
        if not done:
            logger.warning("No answer to %s within %.0f s", method, TIMEOUT)
            return []
        error = call.exception()
        if error is not None:
            logger.warning("No answer to %s: %s", method, error)
            return []
        return call.result()

    async def _call_engines(self, method: str, args: tuple[str, ...]) -> list[Any]:
        """Call all data-parallel engines. Returns the result of rank 0 of each.

        vLLM's ``collective_rpc`` calls all engines but returns only the results of the first, so its private
        ``_call_utility_async`` is called for each of them.
        """
        core = self.client.engine_core
        if self.engines == 1:
            return [(await self.client.collective_rpc(method, args=args))[0]]
        call = ("collective_rpc", method, None, args, None)
        answers = await asyncio.gather(
            *(core._call_utility_async(*call, engine=engine) for engine in core.core_engines)
        )
        return [ranks[0] for ranks in answers]

    def _check(self, parsed: ParsedRequest, request: Mapping[str, Any]) -> None:
        """Refuse a request that the engine cannot run, or that the operator does not allow."""
        name, options, samples = parsed.method.name, parsed.options, request.get("n")
        if isinstance(samples, int) and samples > MAX_SAMPLES:
            raise OptionError(f"n = {shown(samples)}: a request that explores may have {MAX_SAMPLES:,} samples")
        if not self.explores:
            raise OptionError(
                f"{METHOD} = {name!r}: the workers of this server do not explore; start it with esamp serve, or with "
                f"--worker-cls {WORKER_CLASS}"
            )
        if request.get("use_beam_search"):
            raise OptionError(f"{METHOD} = {name!r}: beam search does not sample, so it cannot explore")
        if parsed.method.crosses_requests(options) and not self.settings.shared:
            raise OptionError(
                f"{METHOD} = {name!r} with these options (scope = 'batch') lets requests of different users influence "
                "each other, which the operator of this server did not allow (--shared)"
            )
        missing = sorted(set(parsed.method.layers(options)) - set(self.settings.layers))
        if missing:
            kept = ", ".join(map(str, self.settings.layers))
            raise OptionError(f"layer {missing[0]} is not kept by this server, which was started with --layers {kept}")
        waves = len(parsed.method.waves(options, samples)) if isinstance(samples, int) and samples > 1 else 1
        if waves > 1 and not self.waves:
            raise OptionError(
                f"waves = {waves}: the scheduler of this server starts all samples together; ask for waves = 1, or "
                f"start the server with esamp serve, or with --scheduler-cls {SCHEDULER_CLASS}"
            )


def _is_from_vllm(given: object) -> bool:
    """Whether a class in vLLM's configuration (a dotted name, a class or None) is vLLM's own."""
    name = given if isinstance(given, str) else given.__module__ if isinstance(given, type) else "auto"
    return name == "auto" or name.startswith("vllm.")


def _count_prompts(request: Mapping[str, Any]) -> int:
    """The number of prompts of a completion request. A list of token ids is one prompt."""
    prompt = request.get("prompt")
    if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int):
        return len(prompt)
    return 1
