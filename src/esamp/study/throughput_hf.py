"""Throughput on transformers."""

import time
from collections.abc import Callable
from typing import cast

import torch
from transformers import PreTrainedModel

from esamp.engines.hf.explore import explore
from esamp.explorer.config import ESampConfig
from esamp.study.throughput import Load, Run, Subject


class HFSubject(Subject):
    """A transformers model."""

    def __init__(self, model: PreTrainedModel, load: Load, *, full: bool = False) -> None:
        """Time `model` under `load`; `full` telemetry projects a second set of states."""
        self.model, self.load, self._full = model, load, full
        vocabulary = model.config.get_text_config(decoder=True).vocab_size
        generator = torch.Generator().manual_seed(0)
        self._ids = torch.randint(vocabulary, (load.prompts, load.prompt_tokens), generator=generator).to(model.device)

    def run(self, options: ESampConfig | None, seed: int) -> Run:
        """Decode; the end of the text is masked."""
        torch.manual_seed(seed)
        if options is None:
            return Run(self._timed())
        with explore(
            self.model,
            options,
            samples_per_prompt=self.load.samples,
            slots=self.load.prompts,
            telemetry="full" if self._full else "basic",
        ) as run:
            return Run(self._timed(), run.telemetry(), bank_bytes=run.method.nbytes)

    def close(self) -> None:
        """The model is freed with the last reference to it."""

    def _timed(self) -> float:
        self._synchronise()
        started = time.perf_counter()
        generate = cast("Callable[..., torch.Tensor]", self.model.generate)
        generate(
            self._ids,
            attention_mask=torch.ones_like(self._ids),
            do_sample=True,
            num_return_sequences=self.load.samples,
            max_new_tokens=self.load.tokens,
            min_new_tokens=self.load.tokens,
            pad_token_id=0,
        )
        self._synchronise()
        return time.perf_counter() - started

    def _synchronise(self) -> None:
        if self.model.device.type == "cuda":
            torch.cuda.synchronize(self.model.device)
