"""Requests for tests of `OpenAIEngine`."""

from typing import Any

from esamp.engines.base import Completion, Request
from esamp.engines.openai import OpenAIEngine
from esamp.methods import registry as methods
from esamp.sampling import Sampling
from esamp.search.base import answer

NUMBERS = "Numbers 3 5 8 9 target 24"
KEY = "sk-a-secret-of-ours"
SHORT = Sampling(max_tokens=16)


def asked(method: str = "vanilla", *, id: str = "r", n: int = 2, **more: Any) -> Request:
    options = more.pop("options", {})
    fields = {"prompt": NUMBERS, "sampling": SHORT, "seed": 1} | more
    return Request(id, n=n, method=method, options=methods.get(method).options(**options), **fields)


def only(engine: OpenAIEngine, request: Request) -> Completion:
    [found] = answer(engine, [request])
    return found


def texts(completion: Completion) -> list[str]:
    return [sample.text for sample in completion.samples]
