"""`GroupMeasurements`: what embedding and language models measure of a group's texts after they were sampled."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class GroupLikelihoods:
    """A group's samples under one model at temperature 1: one value per sample, NaN for a sample without tokens."""

    nll: tuple[float, ...]
    """mean negative log-likelihood per token, in nats"""
    entropy: tuple[float, ...]
    """mean entropy of the model's next-token distribution along the sample, in nats; NaN if it was not requested"""
    tokens: tuple[int, ...]
    """tokens of the sample under this model's tokenizer"""


@dataclass(frozen=True)
class GroupMeasurements:
    """Measurements of one group. None where the study does not request one, or where it is not available."""

    vectors: NDArray[np.float32] | None = None
    """sentence embeddings `[n, d]`, rows of norm 1"""
    similarity: tuple[float, ...] | None = None
    """mean pairwise cosine of the samples' embeddings at each position of `esamp.analysis.positions`; NaN where fewer
    than two samples are long enough"""
    own: GroupLikelihoods | None = None
    """under the undisturbed model that drew the samples"""
    second: GroupLikelihoods | None = None
    """under the study's second model"""
    opening_vendi: float | None = None
    """Vendi Score of the embeddings of the first 30 words of each sample; NaN for a single sample"""
    on_topic: float | None = None
    """share of samples whose own prompt is among the five nearest prompts of the task; NaN if the task has five prompts
    or fewer"""
    nonwords: float | None = None
    """share of words that are not English words; NaN without any word to look up"""

    def check(self, samples: int) -> None:
        """Refuse measurements of another number of samples, and vectors that are not finite.

        Raises:
            ValueError: the measurements do not fit; the message completes a sentence.
        """
        likelihoods = [likelihood for likelihood in (self.own, self.second) if likelihood is not None]
        columns = [
            column for likelihood in likelihoods for column in (likelihood.nll, likelihood.entropy, likelihood.tokens)
        ]
        if any(len(column) != samples for column in columns):
            raise ValueError("it does not have one value per sample")
        if self.vectors is not None and not (len(self.vectors) == samples and np.isfinite(self.vectors).all()):
            raise ValueError("its vectors are not valid")
