"""`Attachment`: the state that a model runner holds for exploring: settings, taps, groups and exploration."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from transformers import AutoTokenizer
from vllm.config import ModelConfig, VllmConfig
from vllm.sampling_params import SamplingParams

from esamp.engines.linearity import PROBES
from esamp.engines.text import line_breaks
from esamp.engines.vllm import distribution
from esamp.engines.vllm.settings import VLLMSettings
from esamp.engines.vllm.workers.clock import Clock
from esamp.engines.vllm.workers.exploration import VLLMExploration
from esamp.engines.vllm.workers.group import SampleSettings
from esamp.engines.vllm.workers.groups import RequestGroups
from esamp.engines.vllm.workers.head import find_head
from esamp.engines.vllm.workers.taps import Taps, attach_taps
from esamp.errors import OptionError, UnsupportedError
from esamp.methods.base import ModelShape

logger = logging.getLogger("vllm.esamp")

RAW_MODES = ("raw_logprobs", "raw_logits")
"""Values of ``logprobs_mode`` in which vLLM reports the model's own distribution, before any sampling parameter."""
NO_ADAPTER = (0,) * PROBES
"""LoRA adapters of the rows with which the LM head is probed: none."""


class Attachment:
    """Settings and, once the model is loaded, the taps, the groups and their exploration."""

    taps: Taps
    groups: RequestGroups
    exploration: VLLMExploration

    def __init__(self, vllm_config: VllmConfig, device: torch.device) -> None:
        """Check that the engine can explore. `attach` completes the rest.

        Raises:
            OptionError: a setting in ``additional_config`` is wrong.
            UnsupportedError: the engine uses a feature that exploring does not support.
        """
        check_engine(vllm_config)
        self.settings = VLLMSettings.read(vllm_config.additional_config)
        self._config, self._device = vllm_config, device
        self._clock = Clock(device)
        self._paused = False

    def attach(self, model: nn.Module) -> None:
        """Prepare the loaded model: attach taps, measure its LM head, allocate slots, and log the result.

        Raises:
            UnsupportedError: the model has no such layers, or none that can be read.
        """
        config = self._config.model_config
        size, dtype = config.get_hidden_size(), config.dtype
        depth = config.hf_text_config.num_hidden_layers
        outside = [layer for layer in self.settings.layers if not 0 <= layer <= depth]
        if outside:
            raise UnsupportedError(f"setting layers: the model has layers 0 to {depth}, not {outside[0]}")
        tokens = self._config.scheduler_config.max_num_batched_tokens
        self.taps = attach_taps(model, self.settings.layers, tokens=tokens, size=size, dtype=dtype)
        head = find_head(model, size, dtype, self._device)
        shape = ModelShape(
            size,
            dict.fromkeys(self.settings.layers, size),
            depth,
            self._device,
            "" if head.has_rows else "this model keeps quantised",
            vocabulary=config.get_vocab_size(),
            line_breaks=partial(_line_breaks, config),
            tied=bool(config.hf_text_config.to_dict().get("tie_word_embeddings")),
            head_scale=head.scale,
            captures=self.settings.capture,
        )
        self.groups = RequestGroups(self.settings, shape)
        self.exploration = VLLMExploration(self.groups, head, self._device, self._clock)
        logger.info(
            "Exploratory Sampling is on for requests that ask for it: %d slots (%.1f MiB), layers %s kept, %s head",
            self.settings.slots,
            self.groups.nbytes / 2**20,
            ", ".join(map(str, self.settings.layers)),
            "linear" if head.is_linear else "capped",
        )

    def add(self, request_id: str, params: SamplingParams | None) -> None:
        """Add a request that enters the batch to its group, if it explores."""
        if params is None or self._paused:
            return
        stops = params.stop_token_ids or () if params.ignore_eos else params.all_stop_token_ids
        limit = SampleSettings.limit if params.max_tokens is None else params.max_tokens
        settings = SampleSettings(tuple(sorted(stops)), limit, params.seed, params.temperature)
        self.groups.add(request_id, params.extra_args, settings)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """A block in which new requests do not explore: they are vLLM's dummy requests for warming up."""
        self._paused = True
        try:
            yield
        finally:
            self._paused = False

    def counters(self) -> dict[str, float]:
        """Totals since the start, and the present use of slots and memory. Synchronises with the device."""
        seconds = {f"seconds_{phase}": value for phase, value in self._clock.seconds().items()}
        return (
            self.groups.telemetry()
            | seconds
            | {
                "slots": float(self.settings.slots),
                "slots_in_use": float(self.groups.slots_in_use),
                "slots_idle": float(self.groups.slots_idle),
                "bank_bytes": float(self.groups.nbytes),
                "buffer_bytes": float(self.taps.nbytes),
            }
        )

    def telemetry(self, request_id: str) -> Mapping[str, float] | None:
        """Telemetry of a request's group; None if the request did not explore, or is no longer remembered."""
        group = self.groups.find(request_id)
        return None if group is None else dict(group.telemetry())

    def refusal(self, request_id: str) -> str | None:
        """Why a request's group runs as plain sampling; None if it explores."""
        group = self.groups.find(request_id)
        return None if group is None else group.refused

    def trace(self, request_id: str) -> dict[int, Tensor] | None:
        """Measurements `[3, tokens]` of each sample of a request, by index; None if it has no trace."""
        return self.groups.trace(request_id)


def _line_breaks(config: ModelConfig) -> tuple[int, ...]:
    if config.skip_tokenizer_init:
        raise OptionError("which tokens break lines is unknown: start vLLM without --skip-tokenizer-init")
    source = dict(revision=config.tokenizer_revision, trust_remote_code=config.trust_remote_code)
    return line_breaks(AutoTokenizer.from_pretrained(config.tokenizer, **source))


def check_engine(config: VllmConfig) -> None:
    """Refuse an engine with a feature that exploring does not support.

    Raises:
        UnsupportedError: naming the feature to leave out.
    """
    version = distribution.imported_version()
    if problem := distribution.outdated(version):
        raise UnsupportedError(problem)
    if warning := distribution.untested(version):
        logger.warning("%s", warning)
    parallel = config.parallel_config
    for used, feature in (
        (config.speculative_config is not None, "speculative decoding (drafts would have to be explored too)"),
        (parallel.pipeline_parallel_size > 1, "pipeline parallelism (the first layer and the head are on two ranks)"),
        (parallel.prefill_context_parallel_size > 1, "prefill context parallelism"),
        (parallel.enable_dbo, "dual batch overlap"),
        (vars(parallel).get("enable_batch_sharded_sampling", False), "batch-sharded sampling"),
        (config.model_config.runner_type != "generate", "models that do not generate"),
    ):
        if used:
            raise UnsupportedError(f"esamp does not work with {feature}: start vLLM without it, or without our worker")
