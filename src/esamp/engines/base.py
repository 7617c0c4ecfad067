"""What every engine takes and gives: `Request` in, `Completion` out. Knows torch by its types only."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias

from esamp.engines.likelihood import Likelihood
from esamp.errors import OptionError, PromptError, RequestError, UnsupportedError
from esamp.methods import registry
from esamp.options import Options
from esamp.sampling import Sampling

if TYPE_CHECKING:
    from torch import Tensor

Progress: TypeAlias = Callable[[int, int], None]
"""Called with (samples finished, tokens generated) since the last call."""

Content: TypeAlias = str | tuple[Mapping[str, str], ...]
"""Of a prompt: a text, or chat messages (mappings with ``role`` and ``content``)."""


@dataclass(frozen=True)
class Request:
    """`n` samples of one prompt, decoded by one method.

    Chat messages go through the model's chat template. All n samples form one group: they share what the method
    learns, and no other request does.
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
        """What the engine's sampler is set to: the request's settings, with what the method makes of them.

        Raises:
            OptionError: the method makes no sense together with these settings.
        """
        return registry.get(self.method).sampler(self.own_options, self.sampling)

    @property
    def own_seed(self) -> int:
        """A seed of 63 bits of the request's own, so that neighbours in a study do not share random numbers."""
        prompt = self.prompt if isinstance(self.prompt, str) else repr([sorted(turn.items()) for turn in self.prompt])
        digest = hashlib.blake2b(f"{self.seed}\n{prompt}".encode(errors="surrogatepass"), digest_size=8).digest()
        return int.from_bytes(digest, "little") >> 1


@dataclass(frozen=True)
class TokenTrace:
    """What the method saw at each generated token of one sample, each `[tokens]` float32 on the CPU.

    NaN where a value was not measured: the first token of a sample comes from prefill and is never steered, and a
    method without a steering error has surprisal and entropy alone. What is None this engine does not measure. The
    values of a token are those of the step that drew it, so its state has read the tokens before it and not itself.
    """

    novelty: Tensor
    """||e||, the norm of the steering error as it steers, i.e. behind the gate"""
    kl: Tensor
    """KL(steered || reference) in nats"""
    surprisal: Tensor
    """-log p of the token under the reference distribution, in nats"""
    pieces: tuple[str, ...]
    """the text that each token adds; joined, they are the sample's text before stop texts are cut off"""
    residual: Tensor | None = None
    """||hL - y||, what the distiller's prediction misses, before the gate"""
    entropy: Tensor | None = None
    """-sum p log p of the reference distribution, in nats"""
    cosine: Tensor | None = None
    """cos(e, w), w being the LM-head row of the token. The gate is a factor of e, so that it does not matter here, but
    where it is shut e is zero and has no direction: NaN. Of the noise of `esamp_noise` neither this nor novelty speaks:
    they are of the error that it stands in for"""
    explained: Tensor | None = None
    """1 - ||hL - y||^2 / ||hL - running mean||^2: telemetry's explained variance is one minus the ratio of their sums.
    NaN in a group's first step, which has no mean yet"""


@dataclass(frozen=True)
class Sample:
    """One of the n answers."""

    index: int
    text: str
    token_ids: tuple[int, ...]
    finish_reason: Literal["stop", "length"]
    trace: TokenTrace | None = None
    logprob: float | None = None
    """sum of its tokens' log-probabilities under the model's own distribution at temperature 1, in nats; None where the
    engine was not told to keep it"""
    server_reason: str = ""
    """why a server ended the sample, in its own word, where that is neither "stop" nor "length": content_filter"""


@dataclass(frozen=True)
class Cost:
    """What an answer took. Methods are compared at equal cost or not at all."""

    tokens: int
    """generated, those of discarded samples too"""
    prompt_tokens: int
    """read, each prompt once however many samples were drawn from it"""
    calls: int
    """samples drawn from the model"""
    seconds: float
    """wall time; requests that shared a batch shared it"""

    def __add__(self, other: Cost) -> Cost:
        """One after the other."""
        return Cost(
            self.tokens + other.tokens,
            self.prompt_tokens + other.prompt_tokens,
            self.calls + other.calls,
            self.seconds + other.seconds,
        )


@dataclass(frozen=True)
class Completion:
    """All samples of one request and what its group's telemetry says (see `esamp.decoding.telemetry.Summary`)."""

    request: Request
    samples: tuple[Sample, ...]
    prompt_tokens: int
    seconds: float
    """wall time of the batch in which the request ran, in seconds"""
    telemetry: Mapping[str, float] = field(default_factory=dict)
    """empty for a method that reports nothing"""
    spent: Cost | None = None
    """where more was generated than the samples show"""
    details: Mapping[str, Any] = field(default_factory=dict)
    """how a search came to its answer (its tree, its votes): JSON values, empty for methods that do not search"""

    @property
    def cost(self) -> Cost:
        """What the answer took."""
        if self.spent is not None:
            return self.spent
        tokens = sum(len(sample.token_ids) for sample in self.samples)
        return Cost(tokens, self.prompt_tokens, len(self.samples), self.seconds)


@dataclass(frozen=True)
class Failure:
    """A request without an answer, while the engine goes on with the others."""

    request: Request
    error: RequestError
    """why; `RequestError.retry` says whether the same request may succeed at another time"""


Outcome: TypeAlias = Completion | Failure
"""What comes of one request."""


class Engine(ABC):
    """Runs requests. An engine owns a model and its tokenizer and knows no method by name."""

    @abstractmethod
    def outcomes(self, requests: Iterable[Request], *, progress: Progress | None = None) -> Iterator[Outcome]:
        """Yield one outcome per request as soon as it is known; batches requests as it sees fit.

        Only what concerns one request is a `Failure`: a prompt that is too long, an answer that was aborted. What every
        request would meet (no memory, no server, an unknown option) is raised.

        Raises:
            UnsupportedError: a request names a method or an option that this engine cannot carry out.
        """

    def generate(self, requests: Iterable[Request], *, progress: Progress | None = None) -> Iterator[Completion]:
        """`outcomes` for callers who need all answers: the first failure is raised.

        Raises:
            RequestError: a request failed.
            UnsupportedError: a request names a method or an option that this engine cannot carry out.
        """
        return completions(self.outcomes(map(_checked, requests), progress=progress))

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
            known = ", ".join(sorted({*options.model_fields, *Sampling.model_fields}))
            raise OptionError(f"unknown setting {min(unknown)!r} of method {method!r}: choose from {known}")
        request = Request(
            "prompt", prompt, n, Sampling.parse(sampling), method, options=options.parse(settings), seed=seed
        )
        return next(self.generate([request]))

    @property
    def chats(self) -> bool:
        """Whether the model has a chat template, through which `complete` passes a text."""
        return False

    def score(self, request: Request, samples: Sequence[Sample], *, distribution: bool = False) -> list[Likelihood]:
        """How probable each of `samples` is under the model at temperature 1, given the request's prompt.

        The request's method and sampler settings do not matter. A sample without token ids is scored by its text.
        `distribution` adds what needs the model's whole distribution at every token: certainty and entropy.

        Raises:
            UnsupportedError: the engine cannot score given tokens, or not their whole distribution.
        """
        raise UnsupportedError(f"{type(self).__name__} cannot score given tokens: use the engine 'hf' or 'vllm'")

    @abstractmethod
    def close(self) -> None:
        """Free what is not freed with the last reference to the engine. ``with engine:`` does it at the end."""

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


def completions(outcomes: Iterable[Outcome]) -> Iterator[Completion]:
    """The completions among `outcomes`, up to the first failure.

    Raises:
        RequestError: that failure's error.
    """
    for outcome in outcomes:
        if isinstance(outcome, Failure):
            raise outcome.error
        yield outcome
