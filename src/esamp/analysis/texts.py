"""Measures of open-ended answers, which are neither right nor wrong: how different they are, and their prose."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from esamp.analysis.topics import DEMO_PROMPTS, OTHER_PROMPTS
from esamp.errors import EsampError
from esamp.metrics.embedding import SentenceEmbedder
from esamp.metrics.lexical import ngram_embedding
from esamp.metrics.quality import empty_share, loop_rate, nonword_share, on_topic_share
from esamp.metrics.vendi import vendi_score

Embed = Callable[[Sequence[str]], NDArray[np.float32]]
NEAR = 0.05
"""Share of all prompts that count as near to a text: 3 of 60, 5 of 100."""


@dataclass(frozen=True)
class TextScores:
    """Of the samples of one prompt; shares in 0..1. NaN where a package is missing or nothing can be measured."""

    vendi: float = math.nan
    """effective number of different texts"""
    nonwords: float = math.nan
    """share of words that are not English words"""
    loops: float = math.nan
    """share of samples that repeat themselves"""
    on_topic: float = math.nan
    """share of samples whose own prompt is among the nearest of all prompts"""
    empty: float = math.nan
    """share of samples without any text"""


class TextMeter:
    """Measures texts with what is installed.

    Attributes:
        missing: what cannot be measured here and what to install, one sentence each.
    """

    def __init__(self, embed: Embed | None, *, words: bool, missing: Sequence[str] = ()) -> None:
        """Use `embed` (texts to unit vectors) for diversity and topic, word n-grams for diversity without it.

        Args:
            embed: sentence embeddings, or None where there are none.
            words: whether the library that knows English words is installed.
            missing: becomes the attribute.
        """
        self._embed, self._words = embed, words
        self.missing = tuple(missing)
        self._prompts: tuple[str, ...] = ()
        self._vectors: NDArray[np.float32] | None = None

    @classmethod
    def start(cls) -> Self:
        """Load what is installed; never fails, but fills `missing`."""
        missing: list[str] = []
        embed: Embed | None = None
        try:
            embed = SentenceEmbedder().encode
        except EsampError as error:
            missing.append(f"diversity is measured by word n-grams, which saturate, and topic is not measured: {error}")
        words = True
        try:
            nonword_share([])  # an error where the library is missing, whatever the texts
        except EsampError as error:
            words = False
            missing.append(f"non-words are not counted: {error}")
        return cls(embed, words=words, missing=missing)

    @property
    def embeds(self) -> bool:
        """Whether diversity is that of sentence embeddings."""
        return self._embed is not None

    def about(self, prompts: Sequence[str]) -> None:
        """Set the prompts that are answered; those of `esamp.analysis.topics` stand beside them as other topics."""
        own = dict.fromkeys(prompts)
        self._prompts = (*own, *(other for other in (*DEMO_PROMPTS, *OTHER_PROMPTS) if other not in own))
        self._vectors = None if self._embed is None else self._embed(self._prompts)

    def measure(self, prompt: str, texts: Sequence[str]) -> TextScores:
        """The scores of `texts`, which answer `prompt`, one of those that `about` was given."""
        if not texts:
            return TextScores()
        vectors = None if self._embed is None else self._embed(texts)
        topic = math.nan
        if vectors is not None and self._vectors is not None:
            blank = np.array([[not text.strip()] for text in texts])
            near = max(1, round(NEAR * len(self._prompts)))
            own = self._prompts.index(prompt)
            topic = on_topic_share(np.where(blank, 0, vectors), self._vectors, own, nearest=near)
        return TextScores(
            vendi=vendi_score(ngram_embedding([text.split() for text in texts]) if vectors is None else vectors),
            nonwords=nonword_share(texts) if self._words else math.nan,
            loops=loop_rate(texts),
            on_topic=topic,
            empty=empty_share(texts),
        )
