"""Quality of generated texts besides perplexity: non-words, loops, topic, empty answers.

The perplexity of a text under the model that generated it falls when the text repeats itself or is commonplace, so it
is not sufficient as a measure of quality. These measures need no language model. They are made for English text.
"""

import re
from collections.abc import Sequence
from functools import cache
from itertools import islice

import numpy as np
from numpy.typing import ArrayLike, NDArray

from esamp.errors import InputError, MissingDependencyError
from esamp.extras import install_command

RARE = 1.5
"""Zipf frequency (log10 of occurrences per billion words) below which a word counts as a non-word."""
LETTERS = 3
"""Letters of the shortest word that is looked up."""
REPEATS = 4
"""Consecutive occurrences of a word that make a loop."""
DISTINCT = 0.7
"""Share of distinct trigrams below which a text is a loop."""
LOOP_WORDS = 12
"""Smallest number of words for which trigrams are counted; it gives ten trigrams."""
NEAREST = 5
"""Rank among the prompts up to which a sample's own prompt counts as on topic."""

_IDEOGRAPH = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"  # written without spaces
_TOKEN = re.compile(rf"[{_IDEOGRAPH}]|(?:(?![{_IDEOGRAPH}])\w)++(?:['’](?:(?![{_IDEOGRAPH}])\w)++)*+")
_SPACED = re.compile(rf"[{_IDEOGRAPH}]|[^\s{_IDEOGRAPH}]+")
# Letters with apostrophes between them. Next to a digit or an underscore they are part of a name or code, not a word.
_WORD = re.compile(r"(?<!\w)[^\W\d_]++(?:['’][^\W\d_]++)*+(?!\w)")


def nonword_share(texts: Sequence[str]) -> float:
    """Share of the lower-case words of all texts that are not English words, in 0..1.

    Words of three letters and more are looked up in `wordfreq` (language "en"); a Zipf frequency below 1.5, that is
    fewer than about 32 occurrences per billion words, makes a non-word. What counts as a word:

    * Only words entirely in lower case. Words with capital letters may be names, so "Zorblax", "NASA" and "iPhone" are
      excluded, and so is the first word of a sentence.
    * A hyphen separates words: "well-known" is looked up as "well" and "known".
    * An apostrophe, straight or curly, belongs to the word. A possessive 's is removed first. A contraction counts as
      a word if the whole ("don't") or the part before the first apostrophe ("lighthouse'll") does.
    * Letters next to digits or underscores ("x86", "3rd", "my_var") are not words and are excluded.

    Words are pooled over the texts, so a long text has more weight than a short one.

    Returns:
        The share; NaN where no text has a word that is looked up.

    Raises:
        MissingDependencyError: wordfreq is not installed.
    """
    words = [word for text in texts for word in _looked_up(text)]
    if not words:
        _zipf("word")  # raises if the library is missing
        return float("nan")
    return sum(not _is_word(word) for word in words) / len(words)


def loops(text: str) -> bool:
    """Whether a text repeats itself: a word four times in a row, or fewer than 70 % distinct word trigrams.

    Case and punctuation are ignored; numbers are words, and so is each ideograph. Trigrams are counted from 12 words
    (ten trigrams) on, because in a shorter text a single repeated phrase would decide.
    """
    words = _TOKEN.findall(text.lower())
    run = 0
    for place, word in enumerate(words):
        run = run + 1 if place and word == words[place - 1] else 1
        if run >= REPEATS:
            return True
    if len(words) < LOOP_WORDS:
        return False
    trigrams = list(zip(words, words[1:], words[2:], strict=False))
    return len(set(trigrams)) < DISTINCT * len(trigrams)


def loop_rate(texts: Sequence[str]) -> float:
    """Share of the texts that `loops` finds repeating themselves; NaN without texts."""
    return sum(map(loops, texts)) / len(texts) if texts else float("nan")


def empty_share(texts: Sequence[str]) -> float:
    """Share of the texts that are empty or only white space; NaN without texts."""
    return sum(not text.strip() for text in texts) / len(texts) if texts else float("nan")


def on_topic_share(vectors: ArrayLike, prompts: ArrayLike, own: int, nearest: int = NEAREST) -> float:
    """Share of samples whose own prompt is among the `nearest` prompts by cosine similarity.

    Prompts with the same similarity as the sample's own do not rank before it, so duplicate prompts have no effect. A
    sample whose vector is zero is off topic; give empty texts such a vector.

    Args:
        vectors: embeddings of the samples of one prompt `[n, d]`; rows need not be normalised.
        prompts: embeddings of the prompts of the task `[P, d]`, by the same model.
        own: the row of `prompts` that the samples answer.
        nearest: how many prompts count as near.

    Returns:
        The share; NaN without samples, or with at most `nearest` prompts, where every sample would be on topic.

    Raises:
        InputError: shapes that do not fit together, values that are not finite, or `own` outside of the prompts.
    """
    samples, all_prompts = _rows("vectors", vectors), _rows("prompts", prompts)
    if len(samples) and samples.shape[1] != all_prompts.shape[1]:
        raise InputError(
            f"samples have {samples.shape[1]} dimensions and prompts {all_prompts.shape[1]}: embed both with one model"
        )
    if not 0 <= own < len(all_prompts):
        raise InputError(f"own = {own}: give a row of the {len(all_prompts)} prompts")
    if nearest < 1:
        raise InputError(f"nearest = {nearest}: give at least 1")
    if len(all_prompts) <= nearest or not len(samples):
        return float("nan")
    cosine = samples @ all_prompts.T  # (n, P)
    ahead = (cosine > cosine[:, [own]] + 1e-9).sum(axis=1)
    nonzero = np.abs(samples).max(axis=1) > 0
    return float(np.mean(nonzero & (ahead < nearest)))


def first_words(text: str, count: int = 30) -> str:
    """The text up to and including its `count`-th word, unchanged between; the whole text if it has no more words.

    A word is a sequence of characters without white space, or one ideograph.

    Raises:
        InputError: `count` is below 1.
    """
    if count < 1:
        raise InputError(f"count = {count}: give at least one word")
    words = list(islice(_SPACED.finditer(text), count + 1))
    return text[: words[count - 1].end()] if len(words) > count else text


def _looked_up(text: str) -> list[str]:
    """The words of a text that are looked up, without possessive 's."""
    words = (match.replace("’", "'").removesuffix("'s") for match in _WORD.findall(text))
    return [word for word in words if word.islower() and len(word.replace("'", "")) >= LETTERS]


@cache
def _is_word(word: str) -> bool:
    return _zipf(word) >= RARE or ("'" in word and _zipf(word.partition("'")[0]) >= RARE)


def _zipf(word: str) -> float:
    try:
        from wordfreq import zipf_frequency
    except ImportError:
        raise MissingDependencyError(f"the share of non-words needs wordfreq: {install_command('metrics')}") from None
    return float(zipf_frequency(word, "en"))


def _rows(name: str, values: ArrayLike) -> NDArray[np.float64]:
    """Rows of norm 1 `[rows, d]`; rows of zeros stay zero."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2:
        raise InputError(f"{name} have shape {array.shape}: give [rows, d]")
    if not np.isfinite(array).all():
        raise InputError(f"{name} hold NaN or infinity: look for the text that produced them")
    norm = np.linalg.norm(array, axis=1, keepdims=True)
    return np.asarray(array / np.where(norm == 0, 1.0, norm), dtype=np.float64)
