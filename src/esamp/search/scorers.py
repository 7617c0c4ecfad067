"""Scorers by name: log-probabilities, text length, a Python function or a reward model.

A name can import code (``function:``) or load a model from anywhere (``reward:``). So names must come from the command
line or a program, never from a network request.
"""

import math
from collections.abc import Callable, Sequence
from importlib.metadata import EntryPoint
from numbers import Real
from typing import Protocol, TypeAlias

from esamp.engines.base import Content, Engine, Request, Sample
from esamp.errors import OptionError, UnsupportedError

LIKELIHOOD_SCORERS = ("logprob", "logprob_sum", "self_certainty")


class Scorer(Protocol):
    """A function that scores texts as answers to a prompt. Scorers by function or reward model have this form."""

    def __call__(self, prompt: Content, texts: Sequence[str]) -> Sequence[float]:
        """A number for each text, the higher the better. NaN and infinity count as no score."""
        ...


SamplesScorer: TypeAlias = Callable[[Engine, Request, Sequence[Sample], str], object]
"""Scores the samples of a request. The text is the device for a reward model. The result is not validated yet, as it
may come from a function outside this package."""


def length(prompt: Content, texts: Sequence[str]) -> list[float]:
    """Number of characters."""
    return [float(len(text)) for text in texts]


def brevity(prompt: Content, texts: Sequence[str]) -> list[float]:
    """Minus the number of characters."""
    return [-float(len(text)) for text in texts]


TEXT_SCORERS: dict[str, Scorer] = {"length": length, "brevity": brevity}


def find(name: str) -> SamplesScorer:
    """The scorer called `name`. Modules and models are loaded when it is first called.

    * ``logprob``: mean log-probability of the sample's tokens under the engine's model at temperature 1,
      ``1/T sum_t log p(y_t | x, y_<t)``; ``logprob_sum``: their sum.
    * ``self_certainty``: ``-1/(T V) sum_t sum_v log(V p(v | x, y_<t))``, the mean KL divergence of the uniform
      distribution from the model's (Kang, Zhao, Song, arXiv 2502.18581).
    * ``length``, ``brevity``: plus or minus the number of characters.
    * ``function:MODULE:ATTRIBUTE``: a Python function of the form of `Scorer`.
    * ``reward:FOLDER_OR_NAME``: a Hugging Face sequence classification model with one output.

    Raises:
        ValueError: there is no scorer of this name.
    """
    kind, colon, rest = name.partition(":")
    if name in TEXT_SCORERS:
        return _by_text(lambda device: TEXT_SCORERS[name])
    if name in LIKELIHOOD_SCORERS:
        return _likelihood(name)
    if colon and rest and kind == "reward":
        return _by_text(lambda device: _reward(rest, device))
    module, colon, attribute = rest.partition(":")
    if kind == "function" and module and attribute:
        return _by_text(lambda device: _function(module, attribute))
    known = [*TEXT_SCORERS, *LIKELIHOOD_SCORERS, "function:MODULE:ATTRIBUTE", "reward:FOLDER_OR_NAME"]
    raise ValueError(f"choose from {', '.join(known)}")


def score(name: str, device: str, engine: Engine, request: Request, samples: Sequence[Sample]) -> list[float | None]:
    """One score per sample of `request`, the higher the better; None where the scorer gives no finite number.

    Raises:
        OptionError: the scorer does not return a number for each text.
        UnsupportedError: the engine cannot compute the log-probabilities that the scorer needs.
        InputError: a reward model cannot be loaded, or a text is too long for it.
    """
    scores = find(name)(engine, request, samples, device)
    values = [_number(each) for each in scores] if isinstance(scores, Sequence) and not isinstance(scores, str) else []
    if len(values) != len(samples) or any(value is None for value in values):
        raise OptionError(
            f"scorer {name!r} must return a list of {len(samples)} numbers, one per text: got {scores!r:.80}"
        )
    return [value if value is not None and math.isfinite(value) else None for value in values]


def _number(score: object) -> float | None:
    """`score` as a float; None if it is not a number."""
    if isinstance(score, bool) or not isinstance(score, Real):
        return None
    try:
        return float(score)
    except OverflowError:
        return math.inf


def _by_text(load: Callable[[str], Scorer]) -> SamplesScorer:
    """Score samples by their texts, each different text once. `load` gets the device."""

    def scorer(engine: Engine, request: Request, samples: Sequence[Sample], device: str) -> object:
        texts = list(dict.fromkeys(sample.text for sample in samples))
        scores: object = load(device)(request.prompt, texts)
        if not isinstance(scores, Sequence) or len(scores) != len(texts):
            return scores  # `score` reports the error
        by_text = dict(zip(texts, scores, strict=True))
        return [by_text[sample.text] for sample in samples]

    return scorer


def _likelihood(name: str) -> SamplesScorer:
    def scorer(engine: Engine, request: Request, samples: Sequence[Sample], device: str) -> object:
        try:
            likelihoods = engine.score(request, samples, distribution=name == "self_certainty")
        except UnsupportedError as error:
            raise UnsupportedError(
                f"scorer {name!r}: {error}. Scorers without logits: length, brevity, function:MODULE:ATTRIBUTE, "
                "reward:NAME"
            ) from error
        if name == "self_certainty":
            return [each.certainty for each in likelihoods]
        return [each.total if name == "logprob_sum" else each.mean for each in likelihoods]

    return scorer


def _reward(source: str, device: str) -> Scorer:
    from esamp.search.reward import load  # imports transformers

    return load(source, device)


def _function(module: str, attribute: str) -> Scorer:
    target = f"{module}:{attribute}"
    try:
        function = EntryPoint("scorer", target, "esamp.scorers").load()
    except (ImportError, AttributeError) as error:
        raise OptionError(f"scorer 'function:{target}' cannot be imported: {error}") from error
    if not callable(function):
        raise OptionError(
            f"scorer 'function:{target}' is {type(function).__name__}, not a function of prompt and texts"
        )
    scorer: Scorer = function
    return scorer
