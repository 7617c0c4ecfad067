"""Guided sampling: propose different concepts one after the other, then sample solutions with each of them."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from typing_extensions import override

from esamp.engines.base import Completion, Content, Engine, Progress, Request, Sample
from esamp.engines.checks import check_active
from esamp.methods.waves import even_waves
from esamp.search.base import SearchMethod
from esamp.search.calls import Meter, derived_seed, instruct, tokens_only
from esamp.search.options import GuidedOptions

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
"""For a plain prompt, which the model continues."""
START = "Approach: {concept}"

_BULLET = re.compile(r"(?:[0-9]{1,3}[.)]|[-*•])\s+", re.ASCII)


class Guided(SearchMethod):
    """Separates exploration, which finds concepts, from generation, which samples solutions with each of them.

    Exploration: ``c_k ~ model(. | prompt, c_1 .. c_{k-1})`` for k = 1 .. K, one call after the other. Each call asks
    for a concept that differs from those before. Generation: ``M = ceil(n / K)`` solutions
    ``y ~ model(. | prompt, c_k)`` for each concept, in one batch. If K does not divide n, the last concepts have one
    solution less. With n < K only n concepts are proposed.

    A proposal that is empty or repeats an earlier one (up to letter case and white space) is dropped, and the reply
    "none" ends the exploration. The n samples are divided among the concepts found. If there are none, the samples are
    drawn from the original prompt, and ``concepts`` in `Completion.details` is an empty list.

    In a chat the instructions go before the last user message. A plain prompt is continued: to get a concept, the model
    writes the next item of a numbered list of approaches after the prompt; to get solutions, a line with the concept is
    put before the prompt.
    """

    name = "guided"
    summary = "proposes K different concepts, then samples solutions with each"
    citation = (
        "Handa, Parmar, RRV, Uddin, Palangi, Baral, GuidedSampling: Steering LLMs Towards Diverse Candidate Solutions "
        "at Inference-Time, arXiv 2510.03777, 2025"
    )
    options = GuidedOptions

    @classmethod
    @override
    def run(cls, engine: Engine, request: Request, *, progress: Progress | None = None) -> Completion:
        options = request.own_options
        assert isinstance(options, GuidedOptions)
        meter = Meter()
        proposals = _proposals(engine, request, options, meter, tokens_only(progress))
        concepts = _accepted(proposals)
        solutions = _solution_requests(request, options, concepts)
        completions = {each.request.id: each for each in engine.generate(solutions, progress=progress)}
        samples: list[Sample] = []
        concept_of: list[int | None] = []  # by sample
        for place, each in enumerate(solutions):
            completion = completions[each.id]
            check_active(completion)
            meter.add(completion)
            samples += completion.samples
            concept_of += [place if concepts else None] * len(completion.samples)
        details: dict[str, Any] = {"concepts": concepts, "proposals": proposals, "concept": concept_of}
        numbered = tuple(replace(sample, index=index) for index, sample in enumerate(samples))
        spent = meter.cost()
        return Completion(request, numbered, spent.prompt_tokens, spent.seconds, spent=spent, details=details)


def _proposals(
    engine: Engine, request: Request, options: GuidedOptions, meter: Meter, progress: Progress | None
) -> list[str]:
    """The proposed concepts in their order, up to and including the first "none"."""
    sampling = request.sampling.replace(max_tokens=options.concept_tokens, stop=())
    proposals: list[str] = []
    for number in range(min(options.concepts, request.n)):
        proposal = Request(
            f"{request.id}/proposal {number + 1}",
            _proposal_prompt(request.prompt, _accepted(proposals)),
            sampling=sampling,
            method=options.over,
            options=options.inner_options(),
            seed=derived_seed(request.seed, "proposal", number),
        )
        [completion] = engine.generate([proposal], progress=progress)
        meter.add(completion)
        proposals.append(_concept(completion.samples[0].text, chat=not isinstance(request.prompt, str)))
        if _is_none(proposals[-1]):
            break
    return proposals


def _proposal_prompt(prompt: Content, known: Sequence[str]) -> Content:
    listed = "".join(f"{number}. {concept}\n" for number, concept in enumerate(known, 1))
    if isinstance(prompt, str):
        return LIST.format(prompt=prompt, known=listed, number=len(known) + 1)
    return instruct(prompt, NEXT.format(known=listed.strip()) if known else FIRST)


def _concept(text: str, *, chat: bool) -> str:
    """The concept in a reply, on one line: all of a chat's reply, or the first line of a continuation."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    kept = " ".join(" ".join(lines if chat else lines[:1]).split())
    return _BULLET.sub("", kept, count=1) if _BULLET.match(kept) else kept


def _is_none(proposal: str) -> bool:
    return proposal.strip(" .*\"'").casefold() == "none"


def _accepted(proposals: Sequence[str]) -> list[str]:
    """The proposals that are concepts: neither empty, nor a repetition, nor "none"."""
    kept = {each.casefold(): each for each in reversed(proposals) if each and not _is_none(each)}
    return [each for each in dict.fromkeys(proposals) if kept.get(each.casefold()) == each]


def _solution_requests(request: Request, options: GuidedOptions, concepts: Sequence[str]) -> list[Request]:
    """One request per concept, with n samples in total; the first requests get the remainder."""
    sizes = even_waves(request.n, len(concepts) or 1)
    return [
        replace(
            request,
            id=f"{request.id}/concept {place + 1}",
            prompt=_solution_prompt(request.prompt, concepts[place]) if concepts else request.prompt,
            n=size,
            method=options.over,
            options=options.inner_options(),
            seed=derived_seed(request.seed, "solution", place),
        )
        for place, size in enumerate(sizes)
    ]


def _solution_prompt(prompt: Content, concept: str) -> Content:
    return instruct(prompt, (START if isinstance(prompt, str) else SOLVE).format(concept=concept))
