"""`Admission`: checks a request's parameters in vLLM's front end, before the engine sees it.

vLLM finds the class by its entry point and asks it, as a custom logits processor, whether the parameters of a new
request are valid; over HTTP a ValueError becomes status 400. It changes no logits.
"""

import logging
from typing import Any

from typing_extensions import override
from vllm.config import VllmConfig
from vllm.sampling_params import SamplingParams
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor

from esamp.engines.vllm.params import METHOD, SAMPLES, apply_sampler, parse
from esamp.engines.vllm.settings import WORKER_CLASS
from esamp.errors import OptionError

logger = logging.getLogger("vllm.esamp")  # a child of vLLM's logger, so that vLLM's handlers show its messages

try:
    from vllm.v1.worker.gpu.sample.logits_processor import LogitsProcessor as V2LogitsProcessor
except ModuleNotFoundError:  # before vLLM 0.27 Model Runner V2 had no custom logits processors

    class V2LogitsProcessor:  # type: ignore[no-redef]
        """An empty base class in place of the missing interface."""


class Admission(LogitsProcessor, V2LogitsProcessor):
    """A logits processor that returns all logits unchanged, with the interfaces of both model runners."""

    @classmethod
    @override
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        """Check the request's parameters, apply the method's sampler settings, and note the number of samples.

        vLLM does not pass n on to the engine's requests, one per sample, but groups and waves need it: it is written
        into ``extra_args``.

        Raises:
            ValueError: with the message for the client.
        """
        try:
            parsed = parse(sampling_params.extra_args)
            apply_sampler(sampling_params)
            if parsed is not None:
                parsed.method.waves(parsed.options, sampling_params.n)
        except OptionError as error:
            raise ValueError(str(error)) from error
        if parsed is not None:
            sampling_params.extra_args = {**sampling_params.extra_args, SAMPLES: sampling_params.n}

    def __init__(self, vllm_config: VllmConfig, *args: Any) -> None:
        """Takes the arguments of either interface."""
        self._explores = "esamp" in str(vllm_config.parallel_config.worker_cls)

    @override
    def is_argmax_invariant(self) -> bool:
        return True  # vLLM may skip it for greedy requests

    @override
    def update_state(self, batch_update: BatchUpdate | None) -> None:
        if batch_update is not None and not self._explores:
            for _, params, *_ in batch_update.added:
                self._warn(params)

    @override
    def add_request(self, req_idx: int, sampling_params: SamplingParams) -> bool:
        if not self._explores:
            self._warn(sampling_params)
        return False  # the request needs no call of `apply`

    @override
    def apply(self, logits: Any, ctx: Any = None) -> Any:
        return logits

    def _warn(self, params: SamplingParams) -> None:
        """Warn of a request with a method that this engine cannot run."""
        if METHOD in (params.extra_args or {}):
            logger.warning(
                "A request asks for method %r, but this engine runs without esamp: start it with worker_cls=%r",
                params.extra_args[METHOD],
                WORKER_CLASS,
            )
