"""What a server answers, checked: it is somebody else's text until then."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from esamp.engines.base import Completion, Cost, Sample
from esamp.engines.openai.bodies import Call
from esamp.errors import InactiveMethodError, PromptError, UnansweredError, UnsupportedError

Reason: TypeAlias = Literal["stop", "length"]
FILTER = "content_filter"
ENDINGS: Mapping[str, Reason] = {
    **dict.fromkeys(("stop", "eos", "eos_token", "stop_sequence", "end_turn"), "stop"),
    **dict.fromkeys(("length", "max_tokens", "model_length"), "length"),
    **dict.fromkeys((FILTER, "tool_calls", "function_call"), "stop"),
}
"""What servers call the end of a sample, in small letters; after any other (abort, error) a request is unanswered."""
SYNONYMS = frozenset(ENDINGS) - {FILTER, "tool_calls", "function_call"}
"""Words that say no more than "stop" or "length"."""
TEXT_PARTS = ("text", "output_text", "refusal")
"""Kinds of the parts of a message that are its text; the others are thoughts, images, calls."""


@dataclass(frozen=True)
class Answer:
    """One response."""

    samples: tuple[Sample, ...]
    tokens: int
    """generated in all"""
    prompt_tokens: int
    report: Mapping[str, Any] | None
    """what our server says of the method"""


def answer(response: object, call: Call, first: int) -> Answer:
    """Read a response of `call.size` samples, of which `first` is the first one.

    Raises:
        UnansweredError: it is no completion, or a sample was broken off.
        UnsupportedError: it has another number of samples, or does not tell how many tokens they took.
    """
    what = f"request {call.request.id!r}"
    choices = response.get("choices") if isinstance(response, dict) else None
    if not isinstance(response, dict) or not isinstance(choices, list) or not choices:
        raise UnansweredError(f"{what}: the server's answer is no completion: it has no choices")
    if len(choices) != call.size:
        raise UnsupportedError(f"{what}: the server gave {len(choices)} of {call.size} samples: ask for n = 1")
    samples = tuple(_sample(choice, place, first, what) for place, choice in enumerate(choices))
    if sorted(sample.index for sample in samples) != list(range(first, first + call.size)):
        raise UnansweredError(f"{what}: the server's answer is no completion: its choices are not numbered from 0 on")
    usage = response.get("usage")
    counted = _count(usage, "completion_tokens")
    if counted is None and not all(sample.token_ids or _withheld(sample) for sample in samples):
        raise UnsupportedError(f"{what}: the server tells no usage, so nobody knows what its answers cost")
    report = response.get("esamp")
    return Answer(
        tuple(sorted(samples, key=lambda sample: sample.index)),
        sum(len(sample.token_ids) for sample in samples) if counted is None else counted,
        _count(usage, "prompt_tokens") or 0,
        report if isinstance(report, dict) else None,
    )


def completion(call: Call, answers: Sequence[Answer], seconds: float) -> Completion:
    """All answers to one request.

    Raises:
        PromptError: a filter withheld all samples.
        UnsupportedError: the server ran the request without its method.
        InactiveMethodError: it does not say what the method did.
    """
    samples = tuple(sample for each in answers for sample in each.samples)
    if all(map(_withheld, samples)):
        raise PromptError(f"request {call.request.id!r}: the server's content filter withheld every sample")
    prompt_tokens = max(each.prompt_tokens for each in answers)
    spent = Cost(sum(each.tokens for each in answers), prompt_tokens, len(samples), seconds)
    telemetry = _telemetry(call, answers) if call.explores else {}
    return Completion(call.request, samples, prompt_tokens, seconds, telemetry, spent)


def _telemetry(call: Call, answers: Sequence[Answer]) -> dict[str, float]:
    """Of the group: of several answers the one that saw most of it."""
    request, found = call.request, list[dict[str, float]]()
    for each in answers:
        report = each.report or {}
        if report.get("explored") is False:
            why = str(report.get("message", "it does not say why"))[:500]
            raise UnsupportedError(
                f"request {request.id!r} was decoded without method {request.method!r}: {why}; ask for less at a time "
                "(--batch-rows, concurrency), or start the server with more --slots or --when-full wait"
            )
        prompts = report.get("prompts")
        for prompt in prompts if isinstance(prompts, list) else []:
            if isinstance(prompt, dict):
                found.append({str(name): _number(value) for name, value in prompt.items()})
    if not found:
        raise InactiveMethodError(
            f"request {request.id!r}: the server does not say what method {request.method!r} did: does something "
            "on the way drop fields?"
        )
    return max(found, key=lambda group: group.get("rows", 0.0))


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def _sample(choice: object, place: int, first: int, what: str) -> Sample:
    if not isinstance(choice, dict):
        raise UnansweredError(f"{what}: the server's answer is no completion: a choice is no object")
    given = choice.get("finish_reason")
    reason = given.partition(":")[0].strip().lower() if isinstance(given, str) else ""  # content_filter: SAFETY
    if reason not in ENDINGS:
        raise UnansweredError(f"{what}: the server broke a sample off: its finish_reason is {str(given)[:80]!r}")
    message = choice.get("message")
    text = _message_text(message) if isinstance(message, dict) else choice.get("text")
    if text is None and reason == FILTER:
        text = ""
    index, ids = choice.get("index", place), choice.get("token_ids")
    if not isinstance(text, str) or not isinstance(index, int):
        raise UnansweredError(f"{what}: the server's answer is no completion: a choice has no text or no index")
    known = isinstance(ids, list) and all(type(each) is int for each in ids)
    own = "" if reason in SYNONYMS else reason
    return Sample(first + index, _whole(text), tuple(ids) if known and ids else (), ENDINGS[reason], server_reason=own)


def _message_text(message: Mapping[str, Any]) -> object:
    """The text of a chat message: its content, all at once or in parts, or the reason why the model refuses."""
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(map(_part_text, content))
    return content or message.get("refusal") or ""


def _part_text(part: object) -> str:
    if isinstance(part, dict):
        part = (part.get("text") or part.get("refusal")) if part.get("type", "text") in TEXT_PARTS else None
    return part if isinstance(part, str) else ""


def _whole(text: str) -> str:
    """Without the halves of characters that JSON can say and no file can hold."""
    return text.encode(errors="replace").decode()


def _withheld(sample: Sample) -> bool:
    return sample.server_reason == FILTER and not sample.text


def _count(usage: object, name: str) -> int | None:
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if type(value) is int and value >= 0 else None
