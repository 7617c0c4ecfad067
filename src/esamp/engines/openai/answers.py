"""Checks a server's responses, which are untrusted, and turns them into samples and completions."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from esamp.engines.base import Completion, Sample
from esamp.engines.cost import Cost
from esamp.engines.openai.bodies import Call
from esamp.engines.titles import title
from esamp.errors import InactiveMethodError, PromptError, UnansweredError, UnsupportedError
from esamp.quoting import shown

Reason: TypeAlias = Literal["stop", "length"]
Quote: TypeAlias = Callable[[object], str]
"""Shortens a server's text for a message and removes the key: `esamp.engines.openai.endpoint.Endpoint.quoted`."""
MOST_TOKENS = 10**12
"""Limit on the number of tokens that a server reports for one request."""
MOST_MEASURED = 1e30
"""Limit on the absolute value of a measurement, so that sums stay finite."""
MOST_IDS = 2**31
"""Limit on token ids."""
FILTER = "content_filter"
ENDINGS: Mapping[str, Reason] = {
    **dict.fromkeys(("stop", "eos", "eos_token", "stop_sequence", "end_turn"), "stop"),
    **dict.fromkeys(("length", "max_tokens", "model_length"), "length"),
    **dict.fromkeys((FILTER, "tool_calls", "function_call"), "stop"),
}
"""Finish reasons of servers, in lower case. With any other (abort, error) the request has failed."""
SYNONYMS = frozenset(ENDINGS) - {FILTER, "tool_calls", "function_call"}
"""Finish reasons that mean the same as "stop" or "length"."""
TEXT_PARTS = ("text", "output_text", "refusal")
"""Types of the parts of a message that are its text; others are thoughts, images, tool calls."""


@dataclass(frozen=True)
class Answer:
    samples: tuple[Sample, ...]
    tokens: int
    """generated tokens of all samples"""
    prompt_tokens: int
    report: Mapping[str, Any] | None
    """the object `esamp` of the response, which a server of `esamp serve` adds"""


def answer(response: object, call: Call, first: int, quote: Quote) -> Answer:
    """Check and read a response.

    Args:
        response: parsed JSON.
        call: the request, whose ``size`` is the number of samples in the response.
        first: index of its first sample.
        quote: for texts of the server in errors.

    Raises:
        UnansweredError: it is not a completion, has impossible numbers, or a sample was aborted.
        UnsupportedError: it has another number of samples, or neither token ids nor a token count.
    """
    what = f"{title(call.request)}"
    choices = response.get("choices") if isinstance(response, dict) else None
    if not isinstance(response, dict) or not isinstance(choices, list) or not choices:
        raise UnansweredError(f"{what}: the server's answer is not a completion: it has no choices")
    if len(choices) != call.size:
        raise UnsupportedError(f"{what}: the server gave {len(choices)} of {call.size} samples: ask for n = 1")
    samples = tuple(_sample(choice, place, first, what, quote) for place, choice in enumerate(choices))
    if sorted(sample.index for sample in samples) != list(range(first, first + call.size)):
        raise UnansweredError(
            f"{what}: the server's answer is not a completion: its choices are not numbered from 0 on"
        )
    usage = response.get("usage")
    counted = token_count(usage, "completion_tokens", what)
    if counted is None and not all(sample.token_ids or _withheld(sample) for sample in samples):
        raise UnsupportedError(f"{what}: the server reports no usage, so the cost of its answers is unknown")
    report = response.get("esamp")
    return Answer(
        tuple(sorted(samples, key=lambda sample: sample.index)),
        sum(len(sample.token_ids) for sample in samples) if counted is None else counted,
        token_count(usage, "prompt_tokens", what) or 0,
        report if isinstance(report, dict) else None,
    )


def completion(call: Call, answers: Sequence[Answer], seconds: float, quote: Quote) -> Completion:
    """The completion of a request from all answers to it.

    Raises:
        UnansweredError: the server's telemetry is not numbers.
        PromptError: a content filter withheld all samples.
        UnsupportedError: the server ran the request without its method.
        InactiveMethodError: the server reports no telemetry of the method.
    """
    samples = tuple(sample for answer in answers for sample in answer.samples)
    if all(map(_withheld, samples)):
        raise PromptError(f"{title(call.request)}: the server's content filter withheld every sample")
    prompt_tokens = max(answer.prompt_tokens for answer in answers)
    spent = Cost(sum(answer.tokens for answer in answers), prompt_tokens, len(samples), seconds)
    telemetry = _telemetry(call, answers, quote) if call.explores else {}
    return Completion(call.request, samples, prompt_tokens, seconds, telemetry, spent)


def token_count(usage: object, name: str, what: str) -> int | None:
    """The number of tokens under `name` in a response's ``usage``; None if it is missing.

    Args:
        usage: the field of the response.
        name: ``completion_tokens`` or ``prompt_tokens``.
        what: names the request in an error.

    Raises:
        UnansweredError: the value is not a number of tokens.
    """
    value = usage.get(name) if isinstance(usage, dict) else None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if value is not None and not (type(value) is int and 0 <= value <= MOST_TOKENS):
        raise UnansweredError(f"{what}: the server's usage.{name} is not a number of tokens: {shown(value)}")
    return value


def _telemetry(call: Call, answers: Sequence[Answer], quote: Quote) -> dict[str, float]:
    """The group's telemetry: if there are several answers, that of the one with the most rows."""
    request, groups = call.request, list[dict[str, float]]()
    for answer in answers:
        report = answer.report or {}
        if report.get("explored") is False:
            why = quote(report.get("message", "no reason given"))
            raise UnsupportedError(
                f"{title(request)} was decoded without method {request.method!r}: {why}; ask for less at a time "
                "(--batch-rows, concurrency), or start the server with more --slots or --when-full wait"
            )
        prompts = report.get("prompts")
        for prompt in prompts if isinstance(prompts, list) else []:
            if isinstance(prompt, dict):
                groups.append({name: _number(name, value, request.id, quote) for name, value in prompt.items()})
    if not groups:
        raise InactiveMethodError(
            f"{title(request)}: the server reports no telemetry of method {request.method!r}: does a proxy "
            "between here and the server drop fields?"
        )
    return max(groups, key=lambda group: group.get("rows", 0.0))


def _number(name: str, value: object, request: str, quote: Quote) -> float:
    """A measurement of the server; null becomes NaN."""
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < MOST_MEASURED:
        quoted = quote(f"{shown(name)} = {shown(value)}")
        raise UnansweredError(f"request {request!r}: the server's telemetry has a value that is not a number: {quoted}")
    return float(value)


def _sample(choice: object, place: int, first: int, what: str, quote: Quote) -> Sample:
    if not isinstance(choice, dict):
        raise UnansweredError(f"{what}: the server's answer is not a completion: a choice is not an object")
    given = choice.get("finish_reason")
    reason = given.partition(":")[0].strip().lower() if isinstance(given, str) else ""  # content_filter: SAFETY
    if reason not in ENDINGS:
        raise UnansweredError(f"{what}: the server aborted a sample: its finish_reason is {shown(quote(given))}")
    message = choice.get("message")
    text = _message_text(message) if isinstance(message, dict) else choice.get("text")
    if text is None and reason == FILTER:
        text = ""
    index, ids = choice.get("index", place), choice.get("token_ids")
    if not isinstance(text, str) or type(index) is not int:
        raise UnansweredError(f"{what}: the server's answer is not a completion: a choice has no text or no index")
    if ids is not None and not (
        isinstance(ids, list) and all(type(token) is int and 0 <= token < MOST_IDS for token in ids)
    ):
        raise UnansweredError(f"{what}: the server's token_ids are not a list of token ids: {shown(ids)}")
    own = "" if reason in SYNONYMS else reason
    return Sample(first + index, _without_surrogates(text), tuple(ids or ()), ENDINGS[reason], server_reason=own)


def _message_text(message: Mapping[str, Any]) -> object:
    """The text of a chat message: its content, as one text or in parts, or the model's refusal."""
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(map(_part_text, content))
    return content or message.get("refusal") or ""


def _part_text(part: object) -> str:
    if isinstance(part, dict):
        part = (part.get("text") or part.get("refusal")) if part.get("type", "text") in TEXT_PARTS else None
    return part if isinstance(part, str) else ""


def _without_surrogates(text: str) -> str:
    """The text without lone surrogates, which JSON can contain and UTF-8 cannot."""
    return text.encode(errors="replace").decode()


def _withheld(sample: Sample) -> bool:
    return sample.server_reason == FILTER and not sample.text
