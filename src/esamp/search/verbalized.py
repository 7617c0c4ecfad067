"""Verbalized sampling: one call asks for several answers together with their probabilities."""

import random
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from esamp.engines.base import Completion, Engine, Progress, Request, Sample, check_active
from esamp.search import stated
from esamp.search.asking import instruct
from esamp.search.base import SearchMethod
from esamp.search.options import VerbalizedOptions
from esamp.search.spending import Meter, tokens_only

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
class Answer:
    """One answer of a call: as a sample, with what was stated and its share of the call's distribution."""

    sample: Sample
    stated: float | None
    weight: float
    call: int


class Verbalized(SearchMethod):
    """Asks the model for a distribution of answers instead of one answer.

    For n samples ``ceil(n / k)`` calls go out together, each with the same instructions before the prompt:
    ``(y_1, p_1), ..., (y_k, p_k) ~ model(. | instructions, prompt)``. With ``pick = "all"`` the samples are the first n
    answers in the order of the calls; with ``"drawn"`` they are drawn, with replacement unless `distinct`, from the
    mean of the calls' distributions ``p_i / sum p``. The request's sampler settings hold for a call, so `max_tokens`
    must leave room for k answers.

    A call in which no answers can be found is one answer as it stands, with no probability; `details` counts such calls
    as ``unparsed`` and keeps all calls' texts. There can be fewer than n samples: calls may hold fewer than k answers,
    and `distinct` drops some. Samples that were read from a longer text have no token ids of their own.
    """

    name = "verbalized"
    summary = "asks for k answers with their probabilities in one call"
    citation = (
        "Zhang, Yu, Chong, Sicilia, Tomz, Manning, Shi, "
        "Verbalized Sampling: How to Mitigate Mode Collapse and Unlock LLM Diversity, arXiv 2510.01171, 2025"
    )
    options = VerbalizedOptions

    @classmethod
    def run(cls, engine: Engine, request: Request, *, progress: Progress | None = None) -> Completion:
        """Ask, read and pick."""
        options = request.own_options
        assert isinstance(options, VerbalizedOptions)
        meter = Meter()
        asked = replace(
            request,
            prompt=instruct(request.prompt, _instructions(options)),
            n=-(-request.n // options.answers_per_call),
            method=options.over,
            options=options.inner_options(),
        )
        [calls] = engine.generate([asked], progress=tokens_only(progress))
        check_active(calls)
        meter.add(calls)
        read = [_read(call) for call in calls.samples]
        answers = [answer for each in read for answer in each]
        picked = _distinct(answers) if options.distinct else answers
        if options.pick == "drawn":
            picked = _drawn(picked, request.n, random.Random(request.own_seed), again=not options.distinct)
        picked = picked[: request.n]
        if progress is not None:
            progress(len(picked), 0)
        samples = tuple(replace(each.sample, index=index) for index, each in enumerate(picked))
        spent = meter.cost()
        details = _details(calls, read, picked)
        return Completion(request, samples, spent.prompt_tokens, spent.seconds, calls.telemetry, spent, details)


def _read(call: Sample) -> list[Answer]:
    """The answers in one call's text; the text itself where there are none."""
    found = stated.parse(call.text)
    if not found:
        return [Answer(call, None, 1.0, call.index)]
    shares = stated.weights([each.probability for each in found])
    return [
        Answer(
            Sample(place, each.text, (), "stop" if each.whole else call.finish_reason),
            each.probability,
            share,
            call.index,
        )
        for place, (each, share) in enumerate(zip(found, shares, strict=True))
    ]


def _distinct(answers: Iterable[Answer]) -> list[Answer]:
    """The first answer of each text, white space aside, with the weights of its repetitions added to its own."""
    first: dict[str, Answer] = {}
    for answer in answers:
        text = " ".join(answer.sample.text.split())
        known = first.get(text)
        first[text] = answer if known is None else replace(known, weight=known.weight + answer.weight)
    return list(first.values())


def _drawn(answers: list[Answer], n: int, rng: random.Random, *, again: bool) -> list[Answer]:
    """At most n answers by their weights; what is stated to be impossible is never drawn."""
    left = [answer for answer in answers if answer.weight > 0]
    if again:
        return rng.choices(left, [answer.weight for answer in left], k=n)
    # The n largest of log(u) / w are n draws without replacement (Efraimidis and Spirakis 2006).
    keyed = [(rng.expovariate(1.0) / answer.weight, place) for place, answer in enumerate(left)]
    return [left[place] for _, place in sorted(keyed)[:n]]


def _details(calls: Completion, read: list[list[Answer]], picked: list[Answer]) -> dict[str, Any]:
    unparsed = [call.index for call, answers in zip(calls.samples, read, strict=True) if answers[0].sample is call]
    return {
        "calls": [call.text for call in calls.samples],
        "unparsed": len(unparsed),
        "unparsed_calls": unparsed,
        "answers": sum(map(len, read)),
        "stated": [answer.stated for answer in picked],
        "weights": [answer.weight for answer in picked],
        "call": [answer.call for answer in picked],
    }


def _instructions(options: VerbalizedOptions) -> str:
    """What stands before the prompt."""
    form = TAGS if options.stated_in == "tags" else JSON
    source = FULL if options.probability_below is None else TAILS.format(below=options.probability_below)
    return f"{form.format(k=options.answers_per_call)} {source}"
