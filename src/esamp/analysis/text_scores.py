"""Scores of open-ended answers without grades: diversity and quality of the texts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from esamp.analysis.open_prompts import DEMO_PROMPTS, OTHER_PROMPTS
from esamp.errors import EsampError
from esamp.metrics.embedding import Embed, SentenceEmbedder
from esamp.metrics.quality import empty_share, loop_rate, nonword_share, on_topic_share
from esamp.metrics.vendi import ngram_vendi, vendi_score

NEAR = 0.05
"""Share of all prompts that count as near to a text: the nearest 3 of 60, or 5 of 100."""


@dataclass(frozen=True)
class TextScores:
    """Scores of the samples of one prompt; shares in 0..1. NaN if a package is missing or nothing can be measured."""

    vendi: float = math.nan
    """effective number of different texts"""
    nonwords: float = math.nan
    """share of words that are not English words"""
    loops: float = math.nan
    """share of samples that repeat themselves (`esamp.metrics.quality.loop_rate`)"""
    on_topic: float = math.nan
    """share of samples whose own prompt is among the nearest of all prompts"""
    empty: float = math.nan
    """share of samples without any text"""


class TextScorer:
    """Scores texts with the packages that are installed.

    Attributes:
        missing: one sentence per measure that is not available, with the package to install.
    """

    def __init__(self, embed: Embed | None, *, words: bool, missing: Sequence[str] = ()) -> None:
        """Use `embed` for diversity and topic; without it, word n-grams for diversity.

        Args:
            embed: sentence embeddings, or None if they are not available.
            words: whether to count non-words, which needs the package wordfreq.
            missing: the sentences of the attribute.
        """
        self._embed, self._words = embed, words
        self.missing = tuple(missing)
        self._prompts: tuple[str, ...] = ()
        self._vectors: NDArray[np.float32] | None = None

    @classmethod
    def start(cls) -> Self:
        """Load what is installed. It never fails: `missing` explains what is not."""
        missing: list[str] = []
        embed: Embed | None = None
        try:
            embed = SentenceEmbedder().encode
        except EsampError as error:
            missing.append(f"diversity is measured by word n-grams, which saturate, and topic is not measured: {error}")
        words = True
        try:
            nonword_share([])  # fails if the package is missing, whatever the texts
        except EsampError as error:
            words = False
            missing.append(f"non-words are not counted: {error}")
        return cls(embed, words=words, missing=missing)

    @property
    def embeds(self) -> bool:
        """Whether diversity is measured by sentence embeddings."""
        return self._embed is not None

    def vectors(self, texts: Sequence[str]) -> NDArray[np.float32] | None:
        """Unit vectors `[texts, d]` of at least one text; None without sentence embeddings."""
        return None if self._embed is None else self._embed(texts)

    def set_prompts(self, prompts: Sequence[str]) -> None:
        """Set the prompts that are answered. Those of `esamp.analysis.open_prompts` are added as other topics."""
        own = dict.fromkeys(prompts)
        self._prompts = (*own, *(other for other in (*DEMO_PROMPTS, *OTHER_PROMPTS) if other not in own))
        self._vectors = None if self._embed is None else self._embed(self._prompts)

    def score(self, prompt: str, texts: Sequence[str]) -> TextScores:
        """The scores of `texts`, the answers to `prompt`, which must be one of `set_prompts`."""
        if not texts:
            return TextScores()
        vectors = None if self._embed is None else self._embed(texts)
        topic = math.nan
        if vectors is not None and self._vectors is not None:
            blank = np.array([[not text.strip()] for text in texts])
            nearest = max(1, round(NEAR * len(self._prompts)))
            own = self._prompts.index(prompt)
            topic = on_topic_share(np.where(blank, 0, vectors), self._vectors, own, nearest=nearest)
        return TextScores(
            vendi=ngram_vendi([text.split() for text in texts]) if vectors is None else vendi_score(vectors),
            nonwords=nonword_share(texts) if self._words else math.nan,
            loops=loop_rate(texts),
            on_topic=topic,
            empty=empty_share(texts),
        )
