"""`Measured`: what other models say of a group's texts, after they were sampled."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Scored:
    """A group's samples under a model at temperature 1, one value a sample; NaN for a sample without tokens."""

    nll: tuple[float, ...]
    """mean negative log-likelihood of a token, in nats"""
    entropy: tuple[float, ...]
    """mean entropy of the model's next-token distribution along the sample, in nats; NaN where it is not asked for"""
    tokens: tuple[int, ...]
    """of the sample, as this model counts them"""


@dataclass(frozen=True)
class Measured:
    """None where a study asks for no such measure, or where it cannot be had."""

    vectors: NDArray[np.float32] | None = None
    """sentence embeddings `[n, d]`, rows of norm 1"""
    similarity: tuple[float, ...] | None = None
    """mean pairwise cosine of the samples' embeddings at the positions of `analysis.positions`; NaN where fewer than
    two samples are long enough"""
    own: Scored | None = None
    """under the undisturbed model that drew them"""
    second: Scored | None = None
    """under the study's second model"""
    opening_vendi: float | None = None
    """Vendi Score of the embeddings of the first 30 words of each sample; NaN for a single sample"""
    on_topic: float | None = None
    """share of samples whose own prompt is among the five nearest prompts of the task; NaN where it has no more prompts
    than that"""
    nonwords: float | None = None
    """share of words that are no English words; NaN where there is no word to look up"""

    def check(self, samples: int) -> None:
        """Refuse measurements of another number of samples, and vectors that are none.

        Raises:
            ValueError: they are.
        """
        scores = [each for scored in (self.own, self.second) if scored for each in (scored.nll, scored.tokens)]
        entropies = [scored.entropy for scored in (self.own, self.second) if scored]
        if any(len(each) != samples for each in (*scores, *entropies)):
            raise ValueError("it has not one value a sample")
        if self.vectors is not None and not (len(self.vectors) == samples and np.isfinite(self.vectors).all()):
            raise ValueError("its vectors are none")
