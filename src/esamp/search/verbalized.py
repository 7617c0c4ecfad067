"""Verbalized sampling: one call returns several answers with their probabilities."""

import random
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from typing_extensions import override

from esamp.engines.base import Completion, Engine, Progress, Request, Sample
from esamp.engines.checks import check_active
from esamp.search import stated_answers
from esamp.search.base import SearchMethod
from esamp.search.calls import Meter, instruct, tokens_only
from esamp.search.options import VerbalizedOptions

TAGS = (
    "Give {k} different responses to what follows. Write each inside its own <response> tags, as a <text> and a "
    "numeric <probability>: <response><text>...</text><probability>...</probability></response>"
)
JSON = (
    "Give {k} different responses to what follows, as one JSON object and nothing else: "
    '{{"responses": [{{"text": "...", "probability": 0.0}}]}}, with a numeric probability for each.'
)
FULL = "Sample them at random from the full distribution of responses."
TAILS = "Sample them at random from the tails of the distribution, so that the probability of each is below {below:g}."


@dataclass(frozen=True)
class WeightedAnswer:
    """One answer of a call."""

    sample: Sample
    stated: float | None
    """the probability that the model stated"""
    weight: float
    """its share of the call's distribution"""
    call: int
    """index of the call"""


class Verbalized(SearchMethod):
    """Asks the model for a distribution of answers instead of one answer.

    For n samples ``ceil(n / k)`` calls form one batch, each with the same instructions before the prompt:
    ``(y_1, p_1), ..., (y_k, p_k) ~ model(. | instructions, prompt)``. With ``pick = "all"`` the samples are the first n
    answers in the order of the calls. With ``"drawn"`` they are drawn from the mean of the calls' distributions
    ``p_i / sum p``, with replacement unless `distinct`. The request's sampler settings apply to a call, so `max_tokens`
    must leave room for k answers.

    If no answers can be read from a call, its whole text is one answer without a probability. `Completion.details`
    counts such calls as ``unparsed`` and has the texts of all calls. There may be fewer than n samples, as calls may
    return fewer than k answers and `distinct` drops repetitions. Samples that are part of a call's text have no token
    ids.
    """

    name = "verbalized"
    summary = "asks for k answers with their probabilities in one call"
    citation = (
        "Zhang, Yu, Chong, Sicilia, Tomz, Manning, Shi, "
        "Verbalized Sampling: How to Mitigate Mode Collapse and Unlock LLM Diversity, arXiv 2510.01171, 2025"
    )
    options = VerbalizedOptions

    @classmethod
    @override
    def run(cls, engine: Engine, request: Request, *, progress: Progress | None = None) -> Completion:
        options = request.own_options
        assert isinstance(options, VerbalizedOptions)
        meter = Meter()
        inner = replace(
            request,
            prompt=instruct(request.prompt, _instructions(options)),
            n=-(-request.n // options.answers_per_call),
            method=options.over,
            options=options.inner_options(),
        )
        [calls] = engine.generate([inner], progress=tokens_only(progress))
        check_active(calls)
        meter.add(calls)
        by_call = [_answers(call) for call in calls.samples]
        answers = [answer for each in by_call for answer in each]
        picked = _distinct(answers) if options.distinct else answers
        if options.pick == "drawn":
            picked = _drawn(picked, request.n, random.Random(request.own_seed), replacement=not options.distinct)
        picked = picked[: request.n]
        if progress is not None:
            progress(len(picked), 0)
        samples = tuple(replace(each.sample, index=index) for index, each in enumerate(picked))
        spent = meter.cost()
        details = _details(calls, by_call, picked)
        return Completion(request, samples, spent.prompt_tokens, spent.seconds, calls.telemetry, spent, details)


def _answers(call: Sample) -> list[WeightedAnswer]:
    """The answers in the text of one call; the whole text if there are none."""
    stated = stated_answers.parse(call.text)
    if not stated:
        return [WeightedAnswer(call, None, 1.0, call.index)]
    shares = stated_answers.weights([each.probability for each in stated])
    return [
        WeightedAnswer(
            Sample(place, each.text, (), "stop" if each.whole else call.finish_reason),
            each.probability,
            share,
            call.index,
        )
        for place, (each, share) in enumerate(zip(stated, shares, strict=True))
    ]


def _distinct(answers: Iterable[WeightedAnswer]) -> list[WeightedAnswer]:
    """The first answer with each text, up to white space, with the sum of the weights of all its repetitions."""
    first: dict[str, WeightedAnswer] = {}
    for answer in answers:
        text = " ".join(answer.sample.text.split())
        known = first.get(text)
        first[text] = answer if known is None else replace(known, weight=known.weight + answer.weight)
    return list(first.values())


def _drawn(answers: list[WeightedAnswer], n: int, rng: random.Random, *, replacement: bool) -> list[WeightedAnswer]:
    """At most n answers, drawn by their weights; answers of weight zero are never drawn."""
    possible = [answer for answer in answers if answer.weight > 0]
    if replacement:
        return rng.choices(possible, [answer.weight for answer in possible], k=n)
    # The n largest of log(u) / w are n draws without replacement (Efraimidis and Spirakis 2006).
    keyed = [(rng.expovariate(1.0) / answer.weight, place) for place, answer in enumerate(possible)]
    return [possible[place] for _, place in sorted(keyed)[:n]]


def _details(calls: Completion, by_call: list[list[WeightedAnswer]], picked: list[WeightedAnswer]) -> dict[str, Any]:
    unparsed = [call.index for call, answers in zip(calls.samples, by_call, strict=True) if answers[0].sample is call]
    return {
        "calls": [call.text for call in calls.samples],
        "unparsed": len(unparsed),
        "unparsed_calls": unparsed,
        "answers": sum(map(len, by_call)),
        "stated": [answer.stated for answer in picked],
        "weights": [answer.weight for answer in picked],
        "call": [answer.call for answer in picked],
    }


def _instructions(options: VerbalizedOptions) -> str:
    form = TAGS if options.stated_in == "tags" else JSON
    source = FULL if options.probability_below is None else TAILS.format(below=options.probability_below)
    return f"{form.format(k=options.answers_per_call)} {source}"
