"""Throughput on transformers."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, cast

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from esamp.bench.throughput import BenchArm, Load, StateShape, Subject, TimedRun
from esamp.engines.hf.explore import explore


class HFSubject(Subject):
    def __init__(
        self,
        model: PreTrainedModel,
        load: Load,
        *,
        tokenizer: PreTrainedTokenizerBase | None = None,
        full: bool = False,
    ) -> None:
        """Prepare the timing of a model.

        Args:
            model: the model.
            load: what a run decodes.
            tokenizer: needed by methods that must know which tokens break lines.
            full: run with full telemetry, which needs a second projection by the LM head.
        """
        self.model, self.load, self._tokenizer, self._full = model, load, tokenizer, full
        self._config = model.config.get_text_config(decoder=True)
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(self._config.vocab_size, (load.prompts, load.prompt_tokens), generator=generator)
        self._ids = ids.to(model.device)

    @property
    def states(self) -> StateShape:
        return StateShape(self._config.hidden_size, self.model.dtype.itemsize, str(self.model.device))

    def run(self, arm: BenchArm | None, seed: int, tokens: int | None = None) -> TimedRun:
        """Decode with ``generate``, one call per wave. No token ends a sample."""
        torch.manual_seed(seed)
        with self._without_end_token():
            return self._run(arm, seed, tokens or self.load.tokens)

    def close(self) -> None:
        """Nothing to do: the model is freed with the last reference to it."""

    @contextmanager
    def _without_end_token(self) -> Iterator[None]:
        usual = self.model.generation_config
        self.model.generation_config = deepcopy(usual)
        self.model.generation_config.eos_token_id = None
        try:
            yield
        finally:
            self.model.generation_config = usual

    def _run(self, arm: BenchArm | None, seed: int, tokens: int) -> TimedRun:
        if arm is None:
            generate = cast("Callable[..., Any]", self.model.generate)
            return TimedRun(self._timed(generate, self.load.samples, tokens), tokens)
        waves = arm.decoding.waves(arm.options, self.load.samples)
        with explore(
            self.model,
            arm.options,
            method=arm.method,
            samples_per_prompt=waves[0],
            slots=self.load.prompts,
            telemetry="full" if self._full else "basic",
            tokenizer=self._tokenizer,
            seed=seed,
        ) as run:
            run.samples = self.load.samples
            seconds = 0.0
            for size in waves:
                run.samples_per_prompt = size
                seconds += self._timed(run.generate, size, tokens)
            return TimedRun(seconds, tokens * len(waves), run.telemetry(), bank_bytes=run.method.nbytes)

    def _timed(self, generate: Callable[..., Any], samples: int, tokens: int) -> float:
        self._synchronise()
        started = time.perf_counter()
        generate(
            self._ids,
            attention_mask=torch.ones_like(self._ids),
            do_sample=True,
            num_return_sequences=samples,
            max_new_tokens=tokens,
            pad_token_id=0,
        )
        self._synchronise()
        return time.perf_counter() - started

    def _synchronise(self) -> None:
        if self.model.device.type == "cuda":
            torch.cuda.synchronize(self.model.device)
