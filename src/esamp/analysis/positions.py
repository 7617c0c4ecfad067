"""The semantic similarity of a group's samples by position: embeddings of windows of words along their texts.

Figure 4 of the ESamp paper (arXiv 2604.24927): mean pairwise cosine similarity of the samples drawn in parallel from
one prompt, over the token position, up to 2,000 tokens. All methods fall steeply at first; the paper reports that ESamp
keeps falling where the others level off. It names neither the embedder nor the amount of text at a position. Here a
position is a window of words, since the records of all engines have texts but not all have a tokenizer. A prefix
instead of a window would mostly measure how samples begin: a sentence embedder reads only a few hundred word pieces.
"""

import re
from collections.abc import Sequence

from esamp.metrics.embedding import Embed
from esamp.metrics.vendi import mean_cosine

POSITIONS: tuple[int, ...] = (0, 32, 64, 128, 256, 512, 1024, 1536)
"""Words of a sample before each window: dense where samples diverge, and up to the end of the paper's figure."""
WINDOW = 32
"""Words of a window: about two sentences, which a sentence embedder reads completely."""

_ALONE = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"  # kana and ideographs, which are written without spaces
_WORD = re.compile(rf"[{_ALONE}]|[^\s{_ALONE}]+")


def similarity(texts: Sequence[str], encode: Embed) -> tuple[float, ...]:
    """Mean cosine of all pairs of samples, at each of `POSITIONS`.

    s(p) = mean over i < j of cos(x_i(p), x_j(p)), where x_i(p) embeds words p .. p + WINDOW of sample i. A word is a
    run of characters between spaces, or one ideograph. Only samples with a complete window count, because the
    embeddings of shorter pieces would differ by their length.

    Args:
        texts: the samples of one group.
        encode: texts to vectors `[texts, d]`; called at most once, with distinct texts.

    Returns:
        One value per position; NaN where fewer than two samples are long enough.
    """
    windows = [_windows(text) for text in texts]
    distinct = list(dict.fromkeys(window for own in windows for window in own))
    if not distinct:
        return (float("nan"),) * len(POSITIONS)
    rows = {window: row for row, window in enumerate(distinct)}
    vectors = encode(distinct)
    similarities = []
    for index in range(len(POSITIONS)):
        present = [rows[own[index]] for own in windows if len(own) > index]
        similarities.append(mean_cosine(vectors[present]) if len(present) > 1 else float("nan"))
    return tuple(similarities)


def _windows(text: str) -> list[str]:
    """The complete windows of a text at the first of `POSITIONS`, as substrings."""
    words = [match.span() for match in _WORD.finditer(text)]
    return [text[words[at][0] : words[at + WINDOW - 1][1]] for at in POSITIONS if at + WINDOW <= len(words)]
