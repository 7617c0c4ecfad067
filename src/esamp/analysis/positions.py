"""How alike the samples of a group are, from their first words on: the semantic similarity of windows of their texts.

Figure 4 of the ESamp paper (arXiv 2604.24927): mean pairwise cosine similarity of the samples drawn in parallel from
one prompt, over the token position, up to 2,000 tokens. All methods fall steeply at first; ESamp is said to go on
falling where the others level off. The paper names neither its embedder nor how much text a position stands for. Here
it is a window of words: the records of all engines have texts, but not all have a tokenizer. A prefix would say most of
how the sample began, and past the few hundred word pieces that a sentence embedder reads, nothing else.
"""

import re
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from esamp.metrics.vendi import mean_cosine

POSITIONS: tuple[int, ...] = (0, 32, 64, 128, 256, 512, 1024, 1536)
"""Words of a sample before each window: dense where samples part, and as far as the paper's figure goes."""
WINDOW = 32
"""Words of a window: about two sentences, far less than a sentence embedder reads."""

_ALONE = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"  # kana and ideographs stand without spaces
_WORD = re.compile(rf"[{_ALONE}]|[^\s{_ALONE}]+")


def similarity(texts: Sequence[str], encode: Callable[[Sequence[str]], NDArray[np.float32]]) -> tuple[float, ...]:
    """Mean cosine of all pairs of samples, at each of `POSITIONS`.

    s(p) = mean over i < j of cos(x_i(p), x_j(p)), where x_i(p) embeds words p .. p + WINDOW of sample i. A word is what
    stands between spaces, or one ideograph. Only samples that have the whole window count: pieces of different length
    would differ by their length.

    Args:
        texts: the samples of one group.
        encode: gives `[texts, d]`, in their order; called once at most, each different text once.

    Returns:
        One value a position; NaN where fewer than two samples are long enough.
    """
    windows = [_windows(text) for text in texts]
    distinct = list(dict.fromkeys(window for own in windows for window in own))
    if not distinct:
        return (float("nan"),) * len(POSITIONS)
    rows = {window: row for row, window in enumerate(distinct)}
    vectors = encode(distinct)
    found = []
    for place in range(len(POSITIONS)):
        here = [rows[own[place]] for own in windows if len(own) > place]
        found.append(mean_cosine(vectors[here]) if len(here) > 1 else float("nan"))
    return tuple(found)


def _windows(text: str) -> list[str]:
    """The windows that a text has, as they stand in it."""
    words = [match.span() for match in _WORD.finditer(text)]
    return [text[words[at][0] : words[at + WINDOW - 1][1]] for at in POSITIONS if at + WINDOW <= len(words)]
