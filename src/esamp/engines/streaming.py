"""Texts of samples while they are decoded: `StreamedTexts` turns new token ids into text that stays as it is."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from esamp.engines import text
from esamp.engines.base import OnText, Sample

UNFINISHED = "\ufffd"
"""What a decoder gives for bytes that are no character, such as the first half of one."""


class StreamedText:
    """The text of one sample. `add` returns only text that the finished sample will have as well.

    Held back are bytes that are not a whole character yet, and an ending with which a stop text may begin.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, prompt: Sequence[int], stops: Sequence[str] = ()) -> None:
        """Follow a sample after a prompt.

        Args:
            tokenizer: the model's.
            prompt: its token ids.
            stops: texts that end the sample and are no part of it.
        """
        self._tokenizer, self._stops = tokenizer, tuple(stops)
        self._ids = list(prompt[-text.WINDOW :])
        self._decoded = len(self._ids)  # tokens whose text is in `_text`, those of the prompt included
        self._text = ""
        self._shown = 0  # characters that were returned

    def add(self, tokens: Sequence[int]) -> str:
        """The text that is certain now and was not before; `tokens` are the sample's next token ids."""
        self._ids += tokens
        before = self._ids[max(0, self._decoded - text.WINDOW) : self._decoded]
        new = text.decode(self._tokenizer, self._ids[self._decoded :], before)
        if new and not new.endswith(UNFINISHED):
            self._text, self._decoded = self._text + new, len(self._ids)
        certain = max(self._shown, self._certain())
        piece, self._shown = self._text[self._shown : certain], certain
        return piece

    def finish(self, final: str) -> str:
        """The rest of the sample's final text."""
        rest, self._shown = final[self._shown :], len(final)
        return rest

    def _certain(self) -> int:
        """The number of characters before the first stop text, or before an ending that may become one."""
        start = max(0, self._shown - max(map(len, self._stops), default=0))
        places = [place for stop in self._stops if (place := self._text.find(stop, start)) >= 0]
        held = [
            len(self._text) - size
            for stop in self._stops
            for size in range(1, len(stop))
            if self._text.endswith(stop[:size])
        ]
        return min([len(self._text), *places, *held])


class StreamedTexts:
    """The texts of all samples of one request, passed on as they grow."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, on_text: OnText, stops: Sequence[str] = ()) -> None:
        """`on_text` gets the texts; `stops` are the stop texts of the request."""
        self._tokenizer, self._on_text, self._stops = tokenizer, on_text, tuple(stops)
        self._texts: dict[int, StreamedText] = {}

    def add(self, index: int, prompt: Sequence[int], tokens: Sequence[int]) -> None:
        """Take the next token ids of sample `index`, which follows the token ids of `prompt`."""
        if index not in self._texts:
            self._texts[index] = StreamedText(self._tokenizer, prompt, self._stops)
        self._pass_on(index, self._texts[index].add(tokens))

    def finish(self, samples: Sequence[Sample]) -> None:
        """Pass on what is left of the finished samples, which is all of a sample that was not streamed."""
        for sample in samples:
            streamed = self._texts.get(sample.index)
            self._pass_on(sample.index, sample.text if streamed is None else streamed.finish(sample.text))

    def _pass_on(self, index: int, piece: str) -> None:
        if piece:
            self._on_text(index, piece)
