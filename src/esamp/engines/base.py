"""The interface of all engines: `Request`, `Completion`, `Failure`, `Engine`. Imports torch for type checking only."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self, TypeAlias

from esamp.engines.cost import Cost
from esamp.engines.likelihood import Likelihood
from esamp.engines.token_trace import TokenTrace
from esamp.errors import OptionError, PromptError, RequestError, UnsupportedError
from esamp.methods import registry
from esamp.options import Options
from esamp.quoting import did_you_mean
from esamp.sampling import Sampling

Progress: TypeAlias = Callable[[int, int], None]
"""Called with the numbers of samples finished and tokens generated since the last call."""

OnText: TypeAlias = Callable[[int, str], None]
"""Called with the index of a sample and text that follows what it was called with for that sample before."""

Content: TypeAlias = str | tuple[Mapping[str, str], ...]
"""A prompt's content: a text, or chat messages (mappings with ``role`` and ``content``)."""

SEED_LIMIT = 2**62
"""Seeds of requests and groups are below this: vLLM adds a sample's index to them, and the sum must be a valid seed."""


@dataclass(frozen=True)
class Request:
    """`n` samples of one prompt, decoded by one method.

    Chat messages go through the model's chat template. The n samples form one group: what the method learns is shared
    by them and by no other request.
    """

    id: str
    prompt: Content
    n: int = 1
    sampling: Sampling = field(default_factory=Sampling)
    method: str = "esamp"
    options: Options | None = None
    """the method's options; None means its defaults"""
    seed: int = 0

    @property
    def own_options(self) -> Options:
        """The method's options, or its defaults.

        Raises:
            OptionError: there is no such method, or the options are another method's.
        """
        method = registry.get(self.method)
        options = method.options() if self.options is None else self.options
        if not isinstance(options, method.options):
            raise OptionError(f"method {self.method!r} takes {method.options.__name__}, not {type(options).__name__}")
        return options

    @property
    def own_sampling(self) -> Sampling:
        """The settings of the engine's sampler: the request's, as changed by the method.

        Raises:
            OptionError: the method cannot be combined with these settings.
        """
        return registry.get(self.method).sampler(self.own_options, self.sampling)

    @property
    def own_seed(self) -> int:
        """A seed of 63 bits, derived from `seed` and the prompt, so that different prompts use other random numbers."""
        prompt = self.prompt if isinstance(self.prompt, str) else repr([sorted(turn.items()) for turn in self.prompt])
        digest = hashlib.blake2b(f"{self.seed}\n{prompt}".encode(errors="surrogatepass"), digest_size=8).digest()
        return int.from_bytes(digest, "little") >> 1


@dataclass(frozen=True)
class Sample:
    """One of the n samples of a request."""

    index: int
    text: str
    token_ids: tuple[int, ...]
    finish_reason: Literal["stop", "length"]
    trace: TokenTrace | None = None
    logprob: float | None = None
    """sum of its tokens' log-probabilities under the model's own distribution at temperature 1, in nats; None unless
    the engine was started to keep it"""
    server_reason: str = ""
    """the server's own finish reason if it is neither "stop" nor "length", such as content_filter"""
    logprobs: tuple[float, ...] | None = None
    """log-probability of each token in nats under the distribution that it was drawn from: steered, after temperature,
    filters and penalties; 0 with greedy decoding. None unless the engine was started with ``token_logprobs=True``"""
    reference_logprobs: tuple[float, ...] | None = None
    """log-probability of each token in nats under the model alone, its own logits at temperature 1 without any filter;
    None like `logprobs`"""


@dataclass(frozen=True)
class Completion:
    """All samples of one request, and the telemetry of its group (see `esamp.decoding.telemetry.Summary`)."""

    request: Request
    samples: tuple[Sample, ...]
    prompt_tokens: int
    seconds: float
    """wall time of the batch in which the request ran, in seconds"""
    telemetry: Mapping[str, float] = field(default_factory=dict)
    """empty for a method that reports nothing"""
    spent: Cost | None = None
    """the cost if more was generated than the samples contain"""
    details: Mapping[str, Any] = field(default_factory=dict)
    """the course of a search (its tree, its votes) as JSON values; empty for methods that do not search"""

    @property
    def cost(self) -> Cost:
        """`spent`, or the cost of the samples alone."""
        if self.spent is not None:
            return self.spent
        tokens = sum(len(sample.token_ids) for sample in self.samples)
        return Cost(tokens, self.prompt_tokens, len(self.samples), self.seconds)


@dataclass(frozen=True)
class Failure:
    """A failed request. The engine goes on with the others."""

    request: Request
    error: RequestError
    """`RequestError.retry` says whether the same request may succeed at another time"""


Outcome: TypeAlias = Completion | Failure
"""The result of one request."""


class Engine(ABC):
    """Runs requests with one model and its tokenizer. No engine has code for a particular method."""

    @abstractmethod
    def outcomes(self, requests: Iterable[Request], *, progress: Progress | None = None) -> Iterator[Outcome]:
        """Yield the outcome of each request as soon as it is known. The engine decides which requests share a batch.

        An error that concerns one request is a `Failure`: a prompt that is too long, a sample that was aborted. An
        error that would concern all of them (no memory, no server, an unknown option) is raised.

        Args:
            requests: taken one by one, when there is room for another.
            progress: called with the samples and tokens of all requests.

        Raises:
            UnsupportedError: this engine cannot run the method or an option of a request.
        """

    def generate(self, requests: Iterable[Request], *, progress: Progress | None = None) -> Iterator[Completion]:
        """Yield the completions of all requests, as `outcomes` does, and raise the first failure.

        Raises:
            RequestError: a request failed.
            UnsupportedError: this engine cannot run the method or an option of a request.
        """
        return completions(self.outcomes(map(_checked, requests), progress=progress))

    def stream(self, request: Request, on_text: OnText, *, progress: Progress | None = None) -> Outcome:
        """The outcome of one request, whose samples' texts are passed on while they are decoded.

        The texts for one sample together are the sample's text; no piece ends within a character. An engine that
        cannot tell texts before the end passes each on as a whole at the end.

        Args:
            request: the request.
            on_text: called with the index of a sample and the text that was added to it.
            progress: as for `outcomes`.

        Raises:
            UnsupportedError: this engine cannot run the method or an option of the request.
        """
        return passed_on(next(iter(self.outcomes([request], progress=progress))), on_text)

    def sample(self, prompt: Content, n: int = 4, **settings: Any) -> list[str]:
        """The texts of `complete`, which has the arguments."""
        return [sample.text for sample in self.complete(prompt, n, **settings).samples]

    def complete(
        self,
        prompt: Content,
        n: int = 4,
        *,
        method: str = "esamp",
        seed: int = 0,
        chat: bool | None = None,
        **settings: Any,
    ) -> Completion:
        """Draw `n` samples of one prompt.

        Args:
            prompt: a text, or chat messages (mappings with ``role`` and ``content``).
            n: number of samples; they form one group.
            method: how to decode; "vanilla" is plain sampling, and ``esamp methods`` lists all.
            seed: of the sampling.
            chat: whether a text goes through the model's chat template; by default where the model has one.
            **settings: options of the method, such as ``beta``, and of `Sampling`, such as ``temperature``.

        Raises:
            OptionError: a setting does not exist or is out of range.
            RequestError: the prompt cannot be answered.
        """
        if not prompt:
            raise PromptError("the prompt is empty: give a text or chat messages")
        if isinstance(prompt, str) and (self.chats if chat is None else chat):
            prompt = ({"role": "user", "content": prompt},)
        options = registry.get(method).options
        sampling = {name: settings.pop(name) for name in Sampling.model_fields if name in settings}
        unknown = set(settings) - set(options.model_fields)
        if unknown:
            known, name = sorted({*options.model_fields, *Sampling.model_fields}), min(unknown)
            close = did_you_mean(name, known)
            raise OptionError(f"unknown setting {name!r} of method {method!r}{close}: choose from {', '.join(known)}")
        request = Request(
            "prompt", prompt, n, Sampling.parse(sampling), method, options=options.parse(settings), seed=seed
        )
        return next(self.generate([request]))

    @property
    def chats(self) -> bool:
        """Whether the model has a chat template, through which `complete` passes a text."""
        return False

    def score(self, request: Request, samples: Sequence[Sample], *, distribution: bool = False) -> list[Likelihood]:
        """The likelihood of each of `samples` under the model at temperature 1, given the request's prompt.

        Args:
            request: its method and sampler settings have no effect.
            samples: of this or another model; one without token ids is scored by its text.
            distribution: also compute certainty and entropy, which need the model's distribution at every token.

        Raises:
            UnsupportedError: the engine cannot score given tokens, or not compute certainty and entropy.
        """
        raise UnsupportedError(f"{type(self).__name__} cannot score given tokens: use the engine 'hf' or 'vllm'")

    @abstractmethod
    def close(self) -> None:
        """Release resources that outlive the last reference to the engine, such as processes. Called by ``with``."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _checked(request: object) -> Request:
    if not isinstance(request, Request):
        raise OptionError(
            f"generate() takes esamp.Request objects, not {type(request).__name__}: "
            "engine.sample(prompt, n=4) takes a text and returns texts"
        )
    return request


def passed_on(outcome: Outcome, on_text: OnText) -> Outcome:
    """The outcome, after its samples' texts were passed on as a whole."""
    for sample in outcome.samples if isinstance(outcome, Completion) else ():
        if sample.text:
            on_text(sample.index, sample.text)
    return outcome


def completions(outcomes: Iterable[Outcome]) -> Iterator[Completion]:
    """The completions among `outcomes`, up to the first failure.

    Raises:
        RequestError: that failure's error.
    """
    for outcome in outcomes:
        if isinstance(outcome, Failure):
            raise outcome.error
        yield outcome
