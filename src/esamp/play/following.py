"""`Follower`: the texts of one request's samples while they are drawn."""

from dataclasses import dataclass, field

from transformers import PreTrainedTokenizerBase

from esamp.engines import text
from esamp.engines.hf.following import Step
from esamp.engines.hf.traces import Trace
from esamp.report.pages import SampleView


@dataclass
class Growing:
    """A sample that is being drawn."""

    tokens: list[int] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)
    """the text that each token adds"""
    novelty: list[float] = field(default_factory=list)
    """as far as it was read; a token of the newest steps may have none yet"""


class Follower:
    """Collects the tokens of a request that is the only one of its batch."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, n: int) -> None:
        """For the `n` samples of a request."""
        self._tokenizer = tokenizer
        self._samples = [Growing() for _ in range(n)]
        self._latest: Step | None = None

    def add(self, step: Step) -> None:
        """Take the tokens of a step."""
        self._latest = step
        window = list(step.prompts[0][-text.WINDOW :])
        for row, (token, live) in enumerate(zip(step.tokens.tolist(), step.live.tolist(), strict=True)):
            if live:
                sample = self._samples[step.first + row]
                before = [*window, *sample.tokens[-text.WINDOW :]]
                sample.pieces += text.pieces(self._tokenizer, before, [token])
                sample.tokens.append(token)

    def views(self) -> tuple[SampleView, ...]:
        """The samples as they are now. Waits for the device."""
        step = self._latest
        if step is not None and step.trace is not None:
            self._read(step.first, step.trace())
        return tuple(map(_view, self._samples))

    def _read(self, first: int, trace: Trace) -> None:
        for row, novelty in enumerate(trace.novelty.tolist()):
            self._samples[first + row].novelty = novelty


def _view(sample: Growing) -> SampleView:
    tokens, missing = len(sample.pieces), float("nan")
    novelty = (sample.novelty + [missing] * tokens)[:tokens] if sample.novelty else ()
    return SampleView(tuple(sample.pieces), novelty)
