"""`Installation`: exploring, set up for one rank of one vLLM engine."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import torch
import vllm
from packaging.version import Version
from torch import Tensor, nn
from transformers import AutoTokenizer
from vllm.config import ModelConfig, VllmConfig
from vllm.sampling_params import SamplingParams

from esamp.engines.linearity import PROBES
from esamp.engines.text import line_breaks
from esamp.engines.vllm.clock import Clock
from esamp.engines.vllm.exploration import Exploration
from esamp.engines.vllm.groups import NO_FACTS, Facts, Groups
from esamp.engines.vllm.head import find_head
from esamp.engines.vllm.launch import NEWEST, OLDEST
from esamp.engines.vllm.settings import VLLMSettings
from esamp.engines.vllm.taps import Taps, install
from esamp.errors import OptionError, UnsupportedError
from esamp.methods.base import ModelShape

logger = logging.getLogger("vllm.esamp")

RAW = ("raw_logprobs", "raw_logits")
"""``logprobs_mode`` in which vLLM reports on the model's own distribution, as it is before any sampling parameter."""
NO_ADAPTER = (0,) * PROBES
"""Which LoRA adapter goes with each row while the head is measured."""


class Installation:
    """What a runner holds of ours: settings, and once the model is loaded, taps, head, groups and their exploration."""

    taps: Taps
    groups: Groups
    exploration: Exploration

    def __init__(self, vllm_config: VllmConfig, device: torch.device) -> None:
        """Check that the engine can explore.

        Raises:
            OptionError: a setting in ``additional_config`` is wrong.
            UnsupportedError: the engine is configured for something that exploring cannot go with.
        """
        check_engine(vllm_config)
        self.settings = VLLMSettings.read(vllm_config.additional_config)
        self._config, self._device = vllm_config, device
        self._clock = Clock(device)
        self._closed = False

    def attach(self, model: nn.Module) -> None:
        """Read the loaded model's head, install the taps, allocate the slots, and say so in the log."""
        config = self._config.model_config
        size, dtype = config.get_hidden_size(), config.dtype
        depth = config.hf_text_config.num_hidden_layers
        outside = [layer for layer in self.settings.layers if not 0 <= layer <= depth]
        if outside:
            raise UnsupportedError(f"setting layers: the model has layers 0 to {depth}, not {outside[0]}")
        tokens = self._config.scheduler_config.max_num_batched_tokens
        self.taps = install(model, self.settings.layers, tokens=tokens, size=size, dtype=dtype)
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
        )
        self.groups = Groups(self.settings, shape)
        self.exploration = Exploration(self.groups, head, self._device, self._clock)
        logger.info(
            "Exploratory Sampling is on for requests that ask for it: %d slots (%.1f MiB), layers %s kept, %s head",
            self.settings.slots,
            self.groups.nbytes / 2**20,
            ", ".join(map(str, self.settings.layers)),
            "linear" if head.is_linear else "capped",
        )

    def add(self, request_id: str, params: SamplingParams | None) -> None:
        """A request enters the batch."""
        if params is None or self._closed:
            return
        stops = params.stop_token_ids or () if params.ignore_eos else params.all_stop_token_ids
        limit = NO_FACTS.limit if params.max_tokens is None else params.max_tokens
        facts = Facts(tuple(sorted(stops)), limit, params.seed, params.temperature)
        self.groups.add(request_id, params.extra_args, facts)

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Requests that enter meanwhile do not explore: they are the engine's own, made up to warm up with."""
        self._closed = True
        try:
            yield
        finally:
            self._closed = False

    def counters(self) -> dict[str, float]:
        """What was done since the start. Synchronises with the device."""
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
        """What was done for the group of a request; None if it did not explore, or is forgotten."""
        group = self.groups.find(request_id)
        return None if group is None else dict(group.telemetry())

    def refusal(self, request_id: str) -> str | None:
        """Why the group of a request runs as plain sampling; None if it explores."""
        group = self.groups.find(request_id)
        return None if group is None else group.refused

    def trace(self, request_id: str) -> dict[int, Tensor] | None:
        """Measurements `[3, tokens]` of each sample of a request, by index; None if it asked for none."""
        return self.groups.trace(request_id)


def _line_breaks(config: ModelConfig) -> tuple[int, ...]:
    if config.skip_tokenizer_init:
        raise OptionError("which tokens break lines is unknown: start vLLM without --skip-tokenizer-init")
    where = dict(revision=config.tokenizer_revision, trust_remote_code=config.trust_remote_code)
    return line_breaks(AutoTokenizer.from_pretrained(config.tokenizer, **where))


def check_engine(config: VllmConfig) -> None:
    """Refuse what exploring cannot go with.

    Raises:
        UnsupportedError: saying what to leave out.
    """
    version = Version(vllm.__version__)
    if version < Version(OLDEST):
        raise UnsupportedError(f"esamp needs vLLM {OLDEST} or newer, this is {version}: pip install -U vllm")
    if version.release[:2] > Version(NEWEST).release[:2]:
        logger.warning("esamp was tested with vLLM %s to %s, this is %s", OLDEST, NEWEST, version)
    parallel = config.parallel_config
    for wrong, what in (
        (config.speculative_config is not None, "speculative decoding (drafts would have to be explored too)"),
        (parallel.pipeline_parallel_size > 1, "pipeline parallelism (the first layer and the head are on two ranks)"),
        (parallel.prefill_context_parallel_size > 1, "prefill context parallelism"),
        (parallel.enable_dbo, "dual batch overlap"),
        (vars(parallel).get("enable_batch_sharded_sampling", False), "batch-sharded sampling"),
        (config.model_config.runner_type != "generate", "models that do not generate"),
    ):
        if wrong:
            raise UnsupportedError(f"esamp does not work with {what}: start vLLM without it, or without our worker")
