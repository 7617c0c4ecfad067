"""`Job`: all settings of a run, its requests and its records; `run`: executes it."""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from esamp.engines import registry as engines
from esamp.engines.base import Engine, Failure, OnText, Outcome, Progress, Request, Sample
from esamp.methods import registry
from esamp.models import EMBEDDED
from esamp.options import Options
from esamp.runs.decode import decode
from esamp.runs.failures import FailureOptions, FailureRecord, Failures
from esamp.runs.identity import json_digest
from esamp.runs.output import OutputFile
from esamp.runs.prompts import Prompt
from esamp.sampling import Sampling
from esamp.search.over import layers

KEY_DIGITS = 32
"""Hexadecimal digits of the keys of prompts."""


class ModelOptions(Options):
    """Which model runs where."""

    placement: ClassVar[frozenset[str]] = frozenset({"device", "batch_rows", "base_url"})
    """options that change no sample beyond rounding; a run may continue with other values"""

    model: str = EMBEDDED
    """a folder, a Hugging Face name, 'countdown' (the embedded model) or 'smollm2' (a small chat model)"""
    chat: bool | None = Field(default=None, json_schema_extra={"off": "raw"})
    """pass each prompt as a user's message through the model's chat template; by default where the model has one"""
    engine: str = "hf"
    """the library or server that runs the model"""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps"""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """number format of the model's weights"""
    batch_rows: int = Field(default=64, ge=1, le=1_000_000)
    """decode at most this many samples at once; lower it when memory runs out"""
    base_url: str = ""
    """engine openai: the server's address, as in http://127.0.0.1:8000/v1; by default $OPENAI_BASE_URL"""

    @field_validator("engine")
    @classmethod
    def _check_engine(cls, name: str) -> str:
        if name not in engines.ENTRIES:
            raise ValueError(f"choose from {', '.join(engines.ENTRIES)}")
        return name

    def start(self, layers: Sequence[int] = (), *, trace: bool = False, logprobs: bool = False) -> Engine:
        """Load the model into the engine.

        Args:
            layers: inner layers whose hidden states the requests read.
            trace: whether the engine measures every token.
            logprobs: whether the engine keeps the samples' log-probabilities, if it can.
        """
        where: dict[str, Any] = dict(device=self.device, dtype=self.dtype, base_url=self.base_url)
        return engines.start(
            self.engine,
            self.model,
            **where,
            batch_rows=self.batch_rows,
            layers=layers,
            trace=trace,
            logprobs=logprobs,
        )

    def settings(self) -> dict[str, Any]:
        """The options on which samples depend, as JSON: all but `placement`, and whether chat templates are used."""
        return {**self.model_dump(mode="json", exclude=set(self.placement)), "chat": self.chats()}

    def chats(self) -> bool:
        """Whether prompts go through a chat template: the option `chat`, by default whether the model has a template.

        For a server the default is plain prompts.

        Raises:
            InputError: `chat` is not set, and the model's tokenizer cannot be loaded.
        """
        if self.chat is not None:
            return self.chat
        if engines.ENTRIES[self.engine].remote:
            return False
        from esamp.models.templates import has_chat_template  # imports transformers

        return has_chat_template(self.model)


class PlaceOptions(ModelOptions):
    """Which model runs where, and the number and seed of the samples."""

    n: int = Field(default=4, ge=1, le=1_000_000)
    """samples of each prompt"""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """seed of the sampling"""


class RunOptions(FailureOptions, PlaceOptions):
    """Model and method of a run, apart from the options of the sampler and of the method itself."""

    placement: ClassVar[frozenset[str]] = ModelOptions.placement | {"max_failed"}

    method: str = "esamp"
    """how to decode; join methods that can be combined by +, as in esamp+fire"""


@dataclass(frozen=True)
class Job:
    run: RunOptions
    sampling: Sampling
    options: Options
    """those of the method"""

    def settings(self) -> dict[str, Any]:
        """Everything except the prompt on which the samples depend, as JSON."""
        return {
            **self.run.settings(),
            "sampling": self.sampling.model_dump(mode="json"),
            "options": self.options.model_dump(mode="json"),
        }

    def key(self, prompt: Prompt) -> str:
        """The key of a prompt's line in an output file: a hash of id, prompt and settings."""
        identity = {"id": prompt.id, "prompt": prompt.content, "settings": self.settings()}
        return json_digest(identity, KEY_DIGITS)

    def request(self, prompt: Prompt) -> Request:
        """The engine's request for a prompt."""
        return Request(
            id=prompt.id,
            prompt=prompt.content,
            n=self.run.n,
            sampling=self.sampling,
            method=self.run.method,
            options=self.options,
            seed=self._seed(prompt),
        )

    def layers(self) -> tuple[int, ...]:
        """The inner layers that the method reads."""
        return layers(registry.get(self.run.method), self.options)

    def _seed(self, prompt: Prompt) -> int:
        """The seed of the run, or a derived one for a repeated prompt, which would otherwise get the same samples."""
        if not prompt.repeat:
            return self.run.seed
        digest = hashlib.sha256(f"{self.run.seed}/{prompt.repeat}".encode()).digest()
        return int.from_bytes(digest[:8], "big") >> 1

    def record(self, outcome: Outcome) -> dict[str, Any]:
        """An outcome as JSON for files and output. Numbers that were not measured are null."""
        identity = {"id": outcome.request.id, "prompt": outcome.request.prompt}
        if isinstance(outcome, Failure):
            return {**identity, "samples": [], "failure": FailureRecord.of(outcome.error).as_json()}
        return {
            **identity,
            "samples": [_sample_record(sample) for sample in outcome.samples],
            "telemetry": finite(outcome.telemetry),
            "cost": {**asdict(outcome.cost), "seconds": round(outcome.cost.seconds, 3)},
            **({"details": outcome.details} if outcome.details else {}),
            "prompt_tokens": outcome.prompt_tokens,
            "seconds": round(outcome.seconds, 3),
        }


def _sample_record(sample: Sample) -> dict[str, Any]:
    record = {"text": sample.text, "tokens": len(sample.token_ids), "finish_reason": sample.finish_reason}
    return {**record, **({"server_reason": sample.server_reason} if sample.server_reason else {})}


def finite(values: Mapping[str, float]) -> dict[str, float | None]:
    """The values with None for NaN and infinity, which JSON does not have."""
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def remaining(job: Job, prompts: Sequence[Prompt], output: OutputFile | None) -> list[Prompt]:
    """The prompts without samples in the output file, except those that would fail again."""
    return [prompt for prompt in prompts if output is None or not output.is_finished(job.key(prompt))]


def failures(job: Job, prompts: Sequence[Prompt], output: OutputFile | None) -> Failures:
    """The failure count of a run, which starts with the prompts that it skips."""
    known = {} if output is None else output.failed
    keys = [job.key(prompt) for prompt in prompts] if known else []
    return Failures(
        len(prompts), job.run.max_failed, records=[known[k] for k in keys if k in known and not known[k].retry]
    )


def run(
    job: Job,
    prompts: Sequence[Prompt],
    start: Callable[[], Engine],
    *,
    output: OutputFile | None = None,
    failed: Failures | None = None,
    progress: Progress | None = None,
    on_text: OnText | None = None,
) -> Iterator[Outcome]:
    """Yield one outcome per prompt, in the engine's order, after writing it to disk.

    The engine is started only if there are prompts. `failed` counts the failures; by default it starts at zero.
    `on_text` gets the samples' texts while they are decoded, one prompt after the other.

    Raises:
        InactiveMethodError: the method should have acted on a prompt and did not; that prompt is not written.
        FailedRequestsError: more prompts failed than the job allows.
    """
    failed = Failures(len(prompts), job.run.max_failed) if failed is None else failed
    failed.check()
    if not prompts:
        return
    by_id = {prompt.id: prompt for prompt in prompts}
    with start() as engine:
        requests = [job.request(prompt) for prompt in prompts]
        for outcome in decode(engine, requests, progress=progress, on_text=on_text):
            if output is not None:
                output.append(job.key(by_id[outcome.request.id]), job.record(outcome))
            yield outcome
            if isinstance(outcome, Failure):
                failed.add(FailureRecord.of(outcome.error))
