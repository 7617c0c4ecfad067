"""An engine that writes what a function tells it to, for tests of what searches make of texts; and scorers for them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from esamp.engines.base import Completion, Engine, Outcome, Progress, Request, Sample

Script = Callable[[Request, int], str]


class ScriptedEngine(Engine):
    """Answers each request with the texts of a script, one token a character, one second a request."""

    def __init__(self, script: Script | Sequence[str], *, cut: bool = False) -> None:
        """`script` gives the text of a request's sample, or is the texts of all. `cut`: they end at a limit."""
        self.script: Script = script if callable(script) else lambda request, index: script[index % len(script)]
        self.cut = cut
        self.asked: list[Request] = []
        self.calls = 0
        """how often the engine was called"""

    def outcomes(self, requests: Iterable[Request], *, progress: Progress | None = None) -> Iterator[Outcome]:
        self.calls += 1
        for request in requests:
            self.asked.append(request)
            texts = [self.script(request, index) for index in range(request.n)]
            if progress is not None:
                progress(len(texts), sum(map(len, texts)))
            ending: Any = "length" if self.cut else "stop"
            samples = tuple(Sample(n, text, tuple(map(ord, text)), ending) for n, text in enumerate(texts))
            yield Completion(request, samples, 10, 1.0)

    def close(self) -> None:
        pass


def vowels(prompt: object, texts: Sequence[str]) -> list[float]:
    """A user's own scorer."""
    return [float(sum(letter in "aeiou" for letter in text)) for text in texts]


def strange(prompt: object, texts: Sequence[str]) -> list[float]:
    """No score for texts with an x, infinity for those with a y."""
    return [float("nan") if "x" in text else float("inf") if "y" in text else float(len(text)) for text in texts]


def too_few(prompt: object, texts: Sequence[str]) -> list[float]:
    return [1.0]


def words(prompt: object, texts: Sequence[str]) -> list[str]:
    return ["good" for _ in texts]


def nothing(prompt: object, texts: Sequence[str]) -> None:
    return None


NOT_A_FUNCTION = 7
