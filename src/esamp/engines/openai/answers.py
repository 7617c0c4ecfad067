"""What a server answers, checked: it is somebody else's text until then."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from esamp.engines.base import Completion, Cost, Sample
from esamp.engines.openai.bodies import Call
from esamp.errors import InactiveMethodError, PromptError, UnansweredError, UnsupportedError
from esamp.quoting import shown

Reason: TypeAlias = Literal["stop", "length"]
Quote: TypeAlias = Callable[[object], str]
"""What of a server's text a message may repeat: `esamp.engines.openai.endpoint.Endpoint.quoted`."""
MOST_TOKENS = 10**12
"""Tokens that a server may claim to have read or generated for one request."""
MOST_MEASURED = 1e30
"""Measurements are below it, so that their sums stay numbers."""
MOST_IDS = 2**31
"""Token ids are below it."""
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


def answer(response: object, call: Call, first: int, quote: Quote) -> Answer:
    """Read a response of `call.size` samples, of which `first` is the first one.

    Raises:
        UnansweredError: it is no completion, has numbers that cannot be, or a sample was broken off.
        UnsupportedError: it has another number of samples, or does not tell how many tokens they took.
    """
    what = f"request {call.request.id!r}"
    choices = response.get("choices") if isinstance(response, dict) else None
    if not isinstance(response, dict) or not isinstance(choices, list) or not choices:
        raise UnansweredError(f"{what}: the server's answer is no completion: it has no choices")
    if len(choices) != call.size:
        raise UnsupportedError(f"{what}: the server gave {len(choices)} of {call.size} samples: ask for n = 1")
    samples = tuple(_sample(choice, place, first, what, quote) for place, choice in enumerate(choices))
    if sorted(sample.index for sample in samples) != list(range(first, first + call.size)):
        raise UnansweredError(f"{what}: the server's answer is no completion: its choices are not numbered from 0 on")
    usage = response.get("usage")
    counted = token_count(usage, "completion_tokens", what)
    if counted is None and not all(sample.token_ids or _withheld(sample) for sample in samples):
        raise UnsupportedError(f"{what}: the server tells no usage, so nobody knows what its answers cost")
    report = response.get("esamp")
    return Answer(
        tuple(sorted(samples, key=lambda sample: sample.index)),
        sum(len(sample.token_ids) for sample in samples) if counted is None else counted,
        token_count(usage, "prompt_tokens", what) or 0,
        report if isinstance(report, dict) else None,
    )


def completion(call: Call, answers: Sequence[Answer], seconds: float, quote: Quote) -> Completion:
    """All answers to one request.

    Raises:
        UnansweredError: the server's numbers of what the method did are none.
        PromptError: a filter withheld all samples.
        UnsupportedError: the server ran the request without its method.
        InactiveMethodError: it does not say what the method did.
    """
    samples = tuple(sample for each in answers for sample in each.samples)
    if all(map(_withheld, samples)):
        raise PromptError(f"request {call.request.id!r}: the server's content filter withheld every sample")
    prompt_tokens = max(each.prompt_tokens for each in answers)
    spent = Cost(sum(each.tokens for each in answers), prompt_tokens, len(samples), seconds)
    telemetry = _telemetry(call, answers, quote) if call.explores else {}
    return Completion(call.request, samples, prompt_tokens, seconds, telemetry, spent)


def token_count(usage: object, name: str, what: str) -> int | None:
    """What a response's ``usage`` says of a kind of tokens; None where it says nothing.

    Raises:
        UnansweredError: it says something else than a number of tokens.
    """
    value = usage.get(name) if isinstance(usage, dict) else None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if value is not None and not (type(value) is int and 0 <= value <= MOST_TOKENS):
        raise UnansweredError(f"{what}: the server's usage.{name} is no number of tokens: {shown(value)}")
    return value


def _telemetry(call: Call, answers: Sequence[Answer], quote: Quote) -> dict[str, float]:
    """Of the group: of several answers the one that saw most of it."""
    request, found = call.request, list[dict[str, float]]()
    for each in answers:
        report = each.report or {}
        if report.get("explored") is False:
            why = quote(report.get("message", "it does not say why"))
            raise UnsupportedError(
                f"request {request.id!r} was decoded without method {request.method!r}: {why}; ask for less at a time "
                "(--batch-rows, concurrency), or start the server with more --slots or --when-full wait"
            )
        prompts = report.get("prompts")
        for prompt in prompts if isinstance(prompts, list) else []:
            if isinstance(prompt, dict):
                found.append({name: _number(name, value, request.id, quote) for name, value in prompt.items()})
    if not found:
        raise InactiveMethodError(
            f"request {request.id!r}: the server does not say what method {request.method!r} did: does something "
            "on the way drop fields?"
        )
    return max(found, key=lambda group: group.get("rows", 0.0))


def _number(name: str, value: object, request: str, quote: Quote) -> float:
    """A measurement; the server's null is our NaN."""
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < MOST_MEASURED:
        said = quote(f"{shown(name)} = {shown(value)}")
        raise UnansweredError(f"request {request!r}: the server's telemetry has what is no measurement: {said}")
    return float(value)


def _sample(choice: object, place: int, first: int, what: str, quote: Quote) -> Sample:
    if not isinstance(choice, dict):
        raise UnansweredError(f"{what}: the server's answer is no completion: a choice is no object")
    given = choice.get("finish_reason")
    reason = given.partition(":")[0].strip().lower() if isinstance(given, str) else ""  # content_filter: SAFETY
    if reason not in ENDINGS:
        said = shown(quote(given))
        raise UnansweredError(f"{what}: the server broke a sample off: its finish_reason is {said}")
    message = choice.get("message")
    text = _message_text(message) if isinstance(message, dict) else choice.get("text")
    if text is None and reason == FILTER:
        text = ""
    index, ids = choice.get("index", place), choice.get("token_ids")
    if not isinstance(text, str) or type(index) is not int:
        raise UnansweredError(f"{what}: the server's answer is no completion: a choice has no text or no index")
    if ids is not None and not (
        isinstance(ids, list) and all(type(each) is int and 0 <= each < MOST_IDS for each in ids)
    ):
        raise UnansweredError(f"{what}: the server's token_ids are no list of token ids: {shown(ids)}")
    own = "" if reason in SYNONYMS else reason
    return Sample(first + index, _whole(text), tuple(ids or ()), ENDINGS[reason], server_reason=own)


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
