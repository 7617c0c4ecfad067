"""Guided sampling: first propose concepts, each new, then write solutions with each of them."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from esamp.engines.base import Completion, Engine, Progress, Request, Sample, check_active
from esamp.search.asking import Prompt, derived_seed, instruct
from esamp.search.base import SearchMethod
from esamp.search.options import GuidedOptions
from esamp.search.spending import Meter, tokens_only

FIRST = (
    "Read the task below and name one concept, idea or approach that is of most use for it. Write only the concept in "
    "a sentence or less; do not work on the task itself."
)
NEXT = (
    "Read the task below, for which these concepts were proposed already:\n\n{known}\n\nName one concept, idea or "
    "approach that is new, different from all of these, and of use for the task. Write only the concept in a sentence "
    "or less; do not work on the task itself. If there is no further one, write only: none."
)
SOLVE = "Work on the task below with this concept:\n\n{concept}"
LIST = "{prompt}\n\nApproaches to this, each new and different from those before it:\n{known}{number}."
"""For a plain prompt, which a model continues instead of obeying."""
START = "Approach: {concept}"

_BULLET = re.compile(r"(?:[0-9]{1,3}[.)]|[-*•])\s+", re.ASCII)


class Guided(SearchMethod):
    """Separates what to try from trying it.

    Exploration: ``c_k ~ model(. | prompt, c_1 .. c_{k-1})`` for k = 1 .. K, one call after the other, each asking for
    a concept that is new and different from those before. Generation: ``M = ceil(n / K)`` solutions
    ``y ~ model(. | prompt, c_k)`` of every concept, all concepts together in the engine; where K does not divide n,
    some concepts have one less. With n < K only n concepts are asked for.

    A proposal that is empty or repeats an earlier one (letter case and white space aside) is dropped, and the answer
    "none" ends the exploration: the n samples go to the concepts that there are. If there are none at all they are
    drawn from the prompt as it is, which `details` shows by an empty list of ``concepts``.

    A chat gets instructions before its last user message. A plain prompt is something to continue: for concepts a
    numbered list of approaches follows it, of which the model writes the next line; for solutions a line with the
    concept stands before it.
    """

    name = "guided"
    summary = "proposes K different concepts, then samples solutions with each"
    citation = (
        "Handa, Parmar, RRV, Uddin, Palangi, Baral, GuidedSampling: Steering LLMs Towards Diverse Candidate Solutions "
        "at Inference-Time, arXiv 2510.03777, 2025"
    )
    options = GuidedOptions

    @classmethod
    def run(cls, engine: Engine, request: Request, *, progress: Progress | None = None) -> Completion:
        """Explore, then generate."""
        options = request.own_options
        assert isinstance(options, GuidedOptions)
        meter = Meter()
        proposals = _proposals(engine, request, options, meter, tokens_only(progress))
        concepts = _accepted(proposals)
        asked = _solutions(request, options, concepts)
        done = {each.request.id: each for each in engine.generate(asked, progress=progress)}
        samples: list[Sample] = []
        owners: list[int | None] = []
        for place, each in enumerate(asked):
            completion = done[each.id]
            check_active(completion)
            meter.add(completion)
            samples += completion.samples
            owners += [place if concepts else None] * len(completion.samples)
        details: dict[str, Any] = {"concepts": concepts, "proposals": proposals, "concept": owners}
        numbered = tuple(replace(sample, index=index) for index, sample in enumerate(samples))
        spent = meter.cost()
        return Completion(request, numbered, spent.prompt_tokens, spent.seconds, spent=spent, details=details)


def _proposals(
    engine: Engine, request: Request, options: GuidedOptions, meter: Meter, progress: Progress | None
) -> list[str]:
    """What the model wrote when asked for concepts, in order, up to and with its first "none"."""
    sampling = request.sampling.replace(max_tokens=options.concept_tokens, stop=())
    proposals: list[str] = []
    for number in range(min(options.concepts, request.n)):
        asked = Request(
            f"{request.id}/proposal {number + 1}",
            _ask(request.prompt, _accepted(proposals)),
            sampling=sampling,
            method=options.over,
            options=options.inner_options(),
            seed=derived_seed(request.seed, "proposal", number),
        )
        [completion] = engine.generate([asked], progress=progress)
        meter.add(completion)
        proposals.append(_concept(completion.samples[0].text, chat=not isinstance(request.prompt, str)))
        if _is_none(proposals[-1]):
            break
    return proposals


def _ask(prompt: Prompt, known: Sequence[str]) -> Prompt:
    listed = "".join(f"{number}. {concept}\n" for number, concept in enumerate(known, 1))
    if isinstance(prompt, str):
        return LIST.format(prompt=prompt, known=listed, number=len(known) + 1)
    return instruct(prompt, NEXT.format(known=listed.strip()) if known else FIRST)


def _concept(text: str, *, chat: bool) -> str:
    """The concept in what was written, on one line: all of a chat's answer, the first line of a continuation."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    kept = " ".join(" ".join(lines if chat else lines[:1]).split())
    return _BULLET.sub("", kept, count=1) if _BULLET.match(kept) else kept


def _is_none(proposal: str) -> bool:
    return proposal.strip(" .*\"'").casefold() == "none"


def _accepted(proposals: Sequence[str]) -> list[str]:
    """The concepts among proposals: neither empty, nor a repetition, nor "none"."""
    kept = {each.casefold(): each for each in reversed(proposals) if each and not _is_none(each)}
    return [each for each in dict.fromkeys(proposals) if kept.get(each.casefold()) == each]


def _solutions(request: Request, options: GuidedOptions, concepts: Sequence[str]) -> list[Request]:
    """One request per concept, n in all; the first ones are the larger."""
    shares = len(concepts) or 1
    return [
        replace(
            request,
            id=f"{request.id}/concept {place + 1}",
            prompt=_solve(request.prompt, concepts[place]) if concepts else request.prompt,
            n=request.n // shares + (place < request.n % shares),
            method=options.over,
            options=options.inner_options(),
            seed=derived_seed(request.seed, "solution", place),
        )
        for place in range(shares)
    ]


def _solve(prompt: Prompt, concept: str) -> Prompt:
    return instruct(prompt, (START if isinstance(prompt, str) else SOLVE).format(concept=concept))
