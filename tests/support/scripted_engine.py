"""An engine that returns scripted texts, and scorer functions, for the tests of searches."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from esamp.engines.base import Completion, Engine, Outcome, Progress, Request, Sample

Script = Callable[[Request, int], str]


class ScriptedEngine(Engine):
    """Answers each request with scripted texts. Each character is a token, and each request takes a second."""

    def __init__(self, script: Script | Sequence[str], *, cut: bool = False) -> None:
        """`script` is a function of request and sample index, or the texts of all samples. `cut`: finish by length."""
        self.script: Script = script if callable(script) else lambda request, index: script[index % len(script)]
        self.cut = cut
        self.requests: list[Request] = []
        self.batches = 0
        """number of calls of `outcomes`"""

    def outcomes(self, requests: Iterable[Request], *, progress: Progress | None = None) -> Iterator[Outcome]:
        self.batches += 1
        for request in requests:
            self.requests.append(request)
            texts = [self.script(request, index) for index in range(request.n)]
            if progress is not None:
                progress(len(texts), sum(map(len, texts)))
            ending: Any = "length" if self.cut else "stop"
            samples = tuple(Sample(n, text, tuple(map(ord, text)), ending) for n, text in enumerate(texts))
            yield Completion(request, samples, 10, 1.0)

    def close(self) -> None:
        pass


def vowels(prompt: object, texts: Sequence[str]) -> list[float]:
    """The number of vowels."""
    return [float(sum(letter in "aeiou" for letter in text)) for text in texts]


def strange(prompt: object, texts: Sequence[str]) -> list[float]:
    """The length; NaN for texts with an x, infinity for texts with a y."""
    return [float("nan") if "x" in text else float("inf") if "y" in text else float(len(text)) for text in texts]


def too_few(prompt: object, texts: Sequence[str]) -> list[float]:
    return [1.0]


def words(prompt: object, texts: Sequence[str]) -> list[str]:
    return ["good" for _ in texts]


def nothing(prompt: object, texts: Sequence[str]) -> None:
    return None


NOT_A_FUNCTION = 7
