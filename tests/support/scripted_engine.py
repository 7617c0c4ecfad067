"""An engine that returns scripted texts, and replies for it, for the tests of searches."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from esamp.engines.base import Completion, Engine, Outcome, Progress, Request, Sample

Script = Callable[[Request, int], str]


class ScriptedEngine(Engine):
    """Answers each request with scripted texts, in which each character is a token; a request takes one second."""

    def __init__(self, script: Script | Sequence[str], *, cut: bool = False) -> None:
        """Set the texts.

        Args:
            script: a function of request and sample index, or the texts of the samples of each request in order.
            cut: whether every sample ends with the finish reason ``length`` instead of ``stop``.
        """
        self.script: Script = script if callable(script) else lambda request, index: script[index % len(script)]
        self.cut = cut
        self.requests: list[Request] = []
        self.batches = 0
        """how often `outcomes` was called"""

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


def tagged(*answers: tuple[str, float]) -> str:
    """A reply in the format of `verbalized`: answers and their probabilities in tags."""
    return "".join(f"<response><text>{text}</text><probability>{p}</probability></response>" for text, p in answers)


def texts(completion: Completion) -> list[str]:
    return [sample.text for sample in completion.samples]
