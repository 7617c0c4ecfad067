"""Vendi Score: the effective number of different samples in a set (Friedman and Dieng, 2022)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from esamp.errors import InputError
from esamp.metrics.lexical import Tokens, ngram_embedding


def vendi_score(embeddings: ArrayLike) -> float:
    """Vendi Score of order q = 1 with a cosine kernel.

    K[i, j] = cos(x_i, x_j); with the eigenvalues lambda of K / n the score is exp(-sum lambda log lambda): 1 when all
    samples are copies, n when all are orthogonal, never below 1. Negative cosines are not clipped.

    Rows of zeros (texts without features) count as copies of each other, orthogonal to all other rows.

    Args:
        embeddings: `[n, d]`, n >= 1; rows need not be normalised.

    Raises:
        InputError: another shape, no rows, or values that are not finite.
    """
    rows = _unit_rows(embeddings)
    n, d = rows.shape
    gram = rows @ rows.T if n <= d else rows.T @ rows  # both have the same eigenvalues, apart from zeros
    eigenvalues = np.linalg.eigvalsh(gram)
    shares = eigenvalues[eigenvalues > 0]
    shares /= shares.sum()  # the trace of K, which is n up to rounding
    return max(1.0, float(np.exp(-np.sum(shares * np.log(shares)))))


def ngram_vendi(samples: Sequence[Tokens]) -> float:
    """Vendi Score under the n-gram kernel of tokens or words; see `esamp.metrics.lexical.ngram_embedding`."""
    return vendi_score(ngram_embedding(samples))


def mean_cosine(embeddings: ArrayLike) -> float:
    """Mean cosine similarity over all pairs of different rows of `[n, d]`; NaN when n < 2.

    Rows of zeros are treated as in `vendi_score`.

    Raises:
        InputError: another shape, no rows, or values that are not finite.
    """
    rows = _unit_rows(embeddings)
    n = len(rows)
    if n < 2:
        return float("nan")
    whole = rows.sum(axis=0)
    return float((whole @ whole - n) / (n * (n - 1)))


def _unit_rows(embeddings: ArrayLike) -> NDArray[np.float64]:
    """Rows of norm 1, `[n, d + 1]`; the last column is 1 for rows that were zero."""
    array = np.asarray(embeddings, dtype=np.float64)
    if array.ndim != 2 or len(array) == 0:
        raise InputError(f"embeddings have shape {array.shape}: give [n, d] with at least one row")
    if not np.isfinite(array).all():
        raise InputError("embeddings hold NaN or infinity: look for the text that produced them")
    largest = np.abs(array).max(axis=1, keepdims=True, initial=0.0)
    zero = largest == 0
    scaled = array / np.where(zero, 1.0, largest)  # squares of tiny or huge values would leave the range of float64
    rows = np.hstack([scaled, zero])
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float64)
