"""Throughput on vLLM."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from esamp.bench.launches import TOKENS
from esamp.bench.throughput import PHASES, BenchArm, Load, StateShape, Subject, TimedRun
from esamp.engines.vllm import llm_engine
from esamp.engines.vllm.params import RequestOptions, check_supported, flatten
from esamp.engines.vllm.settings import VLLMSettings
from esamp.errors import UnsupportedError

if TYPE_CHECKING:
    from vllm import SamplingParams


class VLLMSubject(Subject):
    """A model in a vLLM engine in this process that decodes all rows at the same time."""

    def __init__(
        self,
        source: str | Path,
        load: Load,
        arms: Sequence[BenchArm],
        *,
        device: str = "auto",
        dtype: str = "auto",
        dummy: bool = False,
        full: bool = False,
        capture: bool = False,
    ) -> None:
        """Start vLLM.

        Args:
            source: folder or name of a model.
            load: what a run decodes.
            arms: the methods to run; the engine keeps the layers that they read. If ESamp is the only one, its memory
                is allocated at the start.
            device: as in `esamp.engines.vllm.engine.VLLMEngine.load`.
            dtype: likewise.
            dummy: use random weights; `source` is then a folder that contains only ``config.json``.
            full: run with full telemetry, which needs a second projection by the LM head.
            capture: as in `VLLMSettings`.

        Raises:
            EsampError: vLLM cannot start, or a method cannot run on vLLM.
        """
        self.load, self._full, self._count, self._open = load, full, 0, False
        layers = {1}
        for arm in arms:
            check_supported(arm.decoding)
            layers.update(arm.decoding.layers(arm.options))
        alone = len(arms) == 1 and arms[0].method == "esamp"  # defaults would apply to the requests of all arms
        defaults = flatten("esamp", arms[0].options) if alone else {}
        settings = VLLMSettings(
            slots=load.prompts,
            when_full="wait",
            layers=tuple(sorted(layers)),
            shared=True,
            memory=1 << 20,
            capture=capture,
            defaults={name: value for name, value in defaults.items() if name != "method"},
        )
        arguments: dict[str, Any] = dict(
            max_model_len=load.prompt_tokens + max(load.tokens, *TOKENS),
            enable_prefix_caching=False,
            skip_tokenizer_init=dummy,
        )
        if dummy:
            arguments |= dict(load_format="dummy")
        self._llm = llm_engine.start(
            source,
            settings,
            device=device,
            dtype=dtype,
            batch_rows=load.rows,
            in_process=True,
            arguments=arguments,
        )
        self._open = True
        vocabulary = self._llm.model_config.get_vocab_size()
        generator = torch.Generator().manual_seed(0)
        self._prompts = torch.randint(vocabulary, (load.prompts, load.prompt_tokens), generator=generator).tolist()

    @property
    def states(self) -> StateShape:
        config = self._llm.model_config
        device = self._llm.vllm_config.device_config.device
        return StateShape(config.get_hidden_size(), config.dtype.itemsize, str(device))

    def run(self, arm: BenchArm | None, seed: int, tokens: int | None = None) -> TimedRun:
        """Decode; no token ends a sample. The seed is that of the engine; samples have none of their own.

        Raises:
            UnsupportedError: the engine ran the requests as plain sampling; the message has the reason.
        """
        before = self._counters()
        torch.manual_seed(seed)
        started, steps = time.perf_counter(), 0
        for prompt in self._prompts:
            self._count += 1
            params = self._params(arm, tokens or self.load.tokens)
            self._llm.add_request(str(self._count), {"prompt_token_ids": prompt}, params)
        while self._llm.has_unfinished_requests():
            self._llm.step()
            steps += 1
        seconds = time.perf_counter() - started
        after = self._counters()
        done = {name: value - before.get(name, 0.0) for name, value in after.items()}
        if arm is not None and not done["rows"]:
            reason = self._llm.collective_rpc("esamp_refusal", args=(str(self._count),))[0]
            raise UnsupportedError(f"{arm.label} did not run: {reason or 'it took part in no decode step'}")
        return TimedRun(
            seconds,
            steps,
            {name: done[name] for name in ("rows", "rows_steered", "updates", "resets")},
            {phase: done.get(f"seconds_{phase}", 0.0) for phase in PHASES},
            bank_bytes=after["bank_bytes"],
            buffer_bytes=after["buffer_bytes"],
        )

    def close(self) -> None:
        if self._open:
            self._open = False
            llm = self._llm
            del self._llm
            llm_engine.stop(llm, in_process=True)

    def _params(self, arm: BenchArm | None, tokens: int) -> "SamplingParams":
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        return SamplingParams(
            n=self.load.samples,
            max_tokens=tokens,
            ignore_eos=True,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
            extra_args=None if arm is None else flatten(arm.method, arm.options, RequestOptions(trace=self._full)),
        )

    def _counters(self) -> Mapping[str, float]:
        counters: Mapping[str, float] = self._llm.collective_rpc("esamp_counters")[0]
        return counters
