"""Quality of texts besides perplexity: words, loops, topic and first words, with hand-computed values."""

import math
import re
import sys

import numpy as np
import pytest

from esamp.errors import InputError, MissingDependencyError
from esamp.extras import install_command
from esamp.metrics import quality
from esamp.metrics.embedding import SentenceEmbedder, _packaged_model
from esamp.metrics.quality import empty_share, first_words, loop_rate, loops, nonword_share, on_topic_share

PLAIN = "We walked along the river until the lights of the village came into view, and nobody said a word."


def test_nonwords_are_a_share_of_the_words_of_all_texts() -> None:
    assert nonword_share([PLAIN]) == 0
    assert nonword_share(["the quick brown fox flurbled"]) == pytest.approx(1 / 5)
    assert nonword_share(["snorvelt", "one two three"]) == pytest.approx(1 / 4)  # pooled, not the mean of 1 and 0


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("Zorblax NASA iPhone the", 0),  # a capital may begin a name
        ("well-known", 0),
        ("well-grumfed", 1 / 2),  # each part of a compound is a word
        ("don't won’t o'clock rock'n'roll", 0),
        ("the lighthouse's lighthouse'll", 0),
        ("flurbled's", 1),
        ("xq zv the", 0),  # two letters are too few
        ("xq's zv's the", 0),  # also before a possessive
        ("x86 my_flurb flurb2 the", 0),
        ("a café", 0),
    ],
)
def test_nonword_share_counts_lower_case_words(text: str, share: float) -> None:
    assert nonword_share([text]) == pytest.approx(share)


@pytest.mark.parametrize("texts", [[], [""], ["A B 12 !"], ["没有"]])
def test_without_words_the_nonword_share_is_nan(texts: list[str]) -> None:
    assert math.isnan(nonword_share(texts))


def test_missing_wordfreq_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wordfreq", None)
    quality._is_word.cache_clear()
    for texts in ([PLAIN], []):
        with pytest.raises(MissingDependencyError, match=f"wordfreq.*{re.escape(install_command('metrics'))}"):
            nonword_share(texts)


@pytest.mark.parametrize(
    ("text", "looping"),
    [
        ("no, No! no. NO", True),
        ("no no no maybe no", False),
        ("哈哈哈哈", True),
        (PLAIN, False),
        ("of the " * 6, True),
        ("of the " * 5 + "sea", False),  # 11 words: too short for trigrams
        ("red green blue. " * 5, True),
        ("", False),
    ],
)
def test_loops_are_recognised(text: str, looping: bool) -> None:
    assert loops(text) is looping


def test_a_loop_has_fewer_than_seventy_percent_distinct_trigrams() -> None:
    """Twelve words have ten trigrams: seven distinct ones are no loop, six are."""
    assert not loops("a, b. C a b c a b d e f g")  # abc bca cab abd bde def efg
    assert loops("a, b. C a b c a b c d e f")  # abc bca cab bcd cde def


def test_rates_are_shares_of_the_texts() -> None:
    assert loop_rate(["no no no no", PLAIN]) == 0.5
    assert empty_share(["", " \n", PLAIN, "x"]) == 0.5
    assert math.isnan(loop_rate([]))
    assert math.isnan(empty_share([]))


def test_first_words_keeps_the_text_between_them() -> None:
    assert first_words("  one,\n two   three", 2) == "  one,\n two"
    assert first_words("one two ", 2) == "one two "
    assert first_words(" ".join(map(str, range(99)))) == " ".join(map(str, range(30)))
    assert first_words("没有人知道", 3) == "没有人"
    with pytest.raises(InputError, match="count = 0"):
        first_words("one", 0)


def circle(*degrees: float) -> list[list[float]]:
    return [[math.cos(math.radians(each)), math.sin(math.radians(each))] for each in degrees]


def test_on_topic_is_a_rank_among_the_prompts() -> None:
    prompts = circle(0, 30, 60, 90)
    samples = np.array(circle(1, 29, 44, 89)) * [[1], [2], [3], [4]]  # norms do not matter
    assert on_topic_share(samples, prompts, own=0, nearest=1) == 1 / 4
    assert on_topic_share(samples, prompts, own=0, nearest=2) == 2 / 4
    assert on_topic_share(samples, prompts, own=0, nearest=3) == 3 / 4  # at 44 degrees, 30 and 60 are nearer


def test_duplicate_prompts_do_not_change_the_rank() -> None:
    assert on_topic_share(circle(1), circle(0, 0, 0, 90), own=2, nearest=1) == 1


def test_a_zero_vector_is_off_topic() -> None:
    assert on_topic_share([[0.0, 0.0], *circle(1)], circle(0, 90), own=0, nearest=1) == 0.5


def test_on_topic_share_is_nan_for_few_prompts_or_no_samples() -> None:
    assert math.isnan(on_topic_share(circle(0), circle(0, 1, 2, 3, 4), own=0))
    assert on_topic_share(circle(0), circle(0, 1, 2, 3, 4, 5), own=0) == 1
    assert math.isnan(on_topic_share(np.zeros((0, 2)), circle(*range(9)), own=0))


def test_invalid_embeddings_and_arguments_are_refused() -> None:
    prompts = circle(*range(9))
    for vectors, own, words in (
        ([[1.0, 0.0, 0.0]], 0, "3 dimensions"),
        ([1.0, 0.0], 0, "shape"),
        ([[math.nan, 0.0]], 0, "NaN"),
        (circle(0), 9, "own = 9"),
        (circle(0), -1, "own = -1"),
    ):
        with pytest.raises(InputError, match=words):
            on_topic_share(vectors, prompts, own)
    with pytest.raises(InputError, match="nearest = 0"):
        on_topic_share(circle(0), prompts, 0, nearest=0)


@pytest.mark.slow
def test_answers_are_nearest_to_their_own_prompt() -> None:
    pytest.importorskip("sentence_transformers", reason="needs esamp[metrics]")
    if _packaged_model() is None:
        pytest.skip("the default embedding model is not installed as a package")
    prompts = ["Name a fruit.", "Write a poem about the sea.", "Explain how taxes work.", "Suggest a name for a dog."]
    encode = SentenceEmbedder().encode
    answers = encode(
        ["The waves roll on the shore, and gulls cry over salt and foam.", "The tax office takes a share."]
    )
    assert on_topic_share(answers, encode(prompts), own=1, nearest=1) == 0.5
