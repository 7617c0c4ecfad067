"""Throughput on vLLM."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from esamp.engines.vllm import llm_engine
from esamp.engines.vllm.params import RequestOptions, flatten
from esamp.engines.vllm.settings import VLLMSettings
from esamp.explorer.config import ESampConfig
from esamp.methods.esamp import ESamp
from esamp.study.throughput import PHASES, Load, Run, Subject

if TYPE_CHECKING:
    from vllm import SamplingParams


class VLLMSubject(Subject):
    """A model in a vLLM engine in this process, whose rows all fit side by side."""

    def __init__(
        self,
        source: str | Path,
        load: Load,
        options: ESampConfig,
        *,
        device: str = "auto",
        dtype: str = "auto",
        dummy: bool = False,
        full: bool = False,
    ) -> None:
        """Start vLLM.

        Args:
            source: a model's folder, or its name.
            load: what is decoded.
            options: how it will be explored, for which the memory is laid out.
            device: as in `esamp.engines.vllm.engine.VLLMEngine.load`.
            dtype: as there.
            dummy: `source` is a folder with nothing but ``config.json``: weights are made up.
            full: with the telemetry that costs a second projection.

        Raises:
            EsampError: as there.
        """
        self.load, self._full, self._count, self._open = load, full, 0, False
        settings = VLLMSettings(
            slots=load.prompts,
            when_full="wait",
            layers=tuple(sorted({1, *ESamp.layers(options)})),
            shared=True,
            memory=1 << 20,
            defaults={name: value for name, value in flatten("esamp", options).items() if name != "method"},
        )
        arguments: dict[str, Any] = dict(
            max_model_len=load.prompt_tokens + load.tokens,
            enable_prefix_caching=False,
            skip_tokenizer_init=True,
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

    def run(self, options: ESampConfig | None, seed: int) -> Run:
        """Decode; the end of the text does not end a sample. Seeds are the engine's, not each sample's."""
        before = self._counters()
        torch.manual_seed(seed)
        started = time.perf_counter()
        for prompt in self._prompts:
            self._count += 1
            self._llm.add_request(str(self._count), {"prompt_token_ids": prompt}, self._params(options))
        while self._llm.has_unfinished_requests():
            self._llm.step()
        seconds = time.perf_counter() - started
        after = self._counters()
        done = {name: value - before.get(name, 0.0) for name, value in after.items()}
        return Run(
            seconds,
            {name: done[name] for name in ("rows", "rows_steered", "updates", "resets")},
            {phase: done.get(f"seconds_{phase}", 0.0) for phase in PHASES},
            bank_bytes=after["bank_bytes"],
            buffer_bytes=after["buffer_bytes"],
        )

    def close(self) -> None:
        """End vLLM's engine."""
        if self._open:
            self._open = False
            llm = self._llm
            del self._llm
            llm_engine.stop(llm, in_process=True)

    def _params(self, options: ESampConfig | None) -> "SamplingParams":
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        return SamplingParams(
            n=self.load.samples,
            max_tokens=self.load.tokens,
            ignore_eos=True,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
            extra_args=None if options is None else flatten("esamp", options, RequestOptions(trace=self._full)),
        )

    def _counters(self) -> Mapping[str, float]:
        counters: Mapping[str, float] = self._llm.collective_rpc("esamp_counters")[0]
        return counters
