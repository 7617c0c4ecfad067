"""What exploring costs: the same decoding with and without it, in interleaved pairs."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from transformers import PreTrainedModel

from esamp.engines.hf.explore import explore
from esamp.errors import InactiveMethodError, InputError
from esamp.explorer.config import ESampConfig
from esamp.metrics.intervals import Interval, bootstrap_mean


@dataclass(frozen=True)
class Load:
    """How much is decoded at once, in a run that is timed."""

    prompts: int = 1
    samples: int = 16
    prompt_tokens: int = 16
    tokens: int = 128

    @property
    def rows(self) -> int:
        """Samples side by side."""
        return self.prompts * self.samples


@dataclass(frozen=True)
class Throughput:
    """Timings of pairs of runs. Ratios are taken pair by pair, because a machine's speed drifts."""

    load: Load
    off: tuple[float, ...]
    """seconds of each run without exploration"""
    on: tuple[float, ...]
    """seconds of each run with it"""
    bank_bytes: int
    telemetry: dict[str, float]

    @property
    def ratio(self) -> Interval:
        """Throughput with exploration over that without, 95 % bootstrap interval over pairs; 0.97 is 3 % slower."""
        return bootstrap_mean(np.array(self.off) / np.array(self.on), np.random.default_rng(0))

    @property
    def generated(self) -> int:
        """Tokens of one run."""
        return self.load.rows * self.load.tokens

    def as_dict(self) -> dict[str, object]:
        """All numbers, for JSON."""
        ratio = self.ratio
        return {
            "prompts": self.load.prompts,
            "samples": self.load.samples,
            "tokens": self.load.tokens,
            "seconds_off": list(self.off),
            "seconds_on": list(self.on),
            "tokens_per_second_off": self.generated / float(np.median(self.off)),
            "tokens_per_second_on": self.generated / float(np.median(self.on)),
            "ms_per_step_off": 1000 * float(np.median(self.off)) / self.load.tokens,
            "ms_per_step_on": 1000 * float(np.median(self.on)) / self.load.tokens,
            "ratio": {"estimate": ratio.estimate, "low": ratio.low, "high": ratio.high},
            "bank_bytes": self.bank_bytes,
            "telemetry": self.telemetry,
        }


def measure(
    model: PreTrainedModel,
    options: ESampConfig,
    load: Load,
    *,
    pairs: int = 5,
    full: bool = False,
    on_run: Callable[[int], None] | None = None,
) -> Throughput:
    """Time `pairs` interleaved pairs of runs after one uncounted pair, all equally long (end-of-text is masked).

    Args:
        model: decoder-only model in evaluation mode.
        options: how to explore.
        load: prompts, samples and lengths; prompts are random tokens, which cost what any other tokens cost.
        pairs: counted pairs.
        full: with the telemetry that projects a second set of states.
        on_run: called with the tokens of each finished run.

    Raises:
        InactiveMethodError: the runs with exploration steered no row or learned nothing.
        InputError: nothing to time.
    """
    if pairs < 1 or min(load.prompts, load.samples, load.prompt_tokens, load.tokens - 1) < 1:
        raise InputError("throughput needs at least one pair, prompt, sample and prompt token, and two tokens")
    generator = torch.Generator().manual_seed(0)
    vocabulary = model.config.get_text_config(decoder=True).vocab_size
    ids = torch.randint(vocabulary, (load.prompts, load.prompt_tokens), generator=generator).to(model.device)
    off, on = [], []
    telemetry: dict[str, float] = {}
    bank_bytes = 0
    for pair in range(pairs + 1):
        seconds_off = _timed(model, ids, load)
        with explore(
            model, options, samples_per_prompt=load.samples, slots=load.prompts, telemetry="full" if full else "basic"
        ) as run:
            seconds_on = _timed(model, ids, load)
            telemetry, bank_bytes = run.telemetry(), run.method.nbytes
        if pair > 0:
            off.append(seconds_off)
            on.append(seconds_on)
        if on_run is not None:
            on_run(2 * load.rows * load.tokens)
    if telemetry["updates"] == 0 or (options.steers and telemetry["rows_steered"] == 0):
        raise InactiveMethodError("no row was steered or nothing was learned: this would time plain sampling twice")
    return Throughput(load, tuple(off), tuple(on), bank_bytes, telemetry)


def _timed(model: PreTrainedModel, ids: torch.Tensor, load: Load) -> float:
    _synchronise(model)
    started = time.perf_counter()
    generate = cast("Callable[..., torch.Tensor]", model.generate)
    generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=True,
        num_return_sequences=load.samples,
        max_new_tokens=load.tokens,
        min_new_tokens=load.tokens,
        pad_token_id=0,
    )
    _synchronise(model)
    return time.perf_counter() - started


def _synchronise(model: PreTrainedModel) -> None:
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
