"""Votes: counts by hand and against a plain reference."""

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esamp.search.votes import best, tally
from esamp.search.weighted_vote import weigh


def test_the_answer_with_most_votes_comes_first() -> None:
    [first, second, third] = tally(["7", "5", None, "5", "9", "7", "5"], [None] * 7)
    assert (first.key, first.votes, first.weight, first.members) == ("5", 3, 3.0, (1, 3, 6))
    assert (second.key, second.votes, second.members) == ("7", 2, (0, 5))
    assert (third.key, third.votes) == ("9", 1)


def test_ties_are_broken_by_the_sum_of_scores_then_by_the_first_drawn() -> None:
    keys = ["b", "a", "a", "b", "c"]
    assert [each.key for each in tally(keys, [None] * 5)] == ["b", "a", "c"]
    [first, second, _] = tally(keys, [1.0, 2.0, 4.0, 4.5, 9.0])
    assert (first.key, first.score, second.score) == ("a", 6.0, 5.5)
    assert first.members == (2, 1)  # the better of its two samples is shown
    assert [each.key for each in tally(keys, [1.0, 2.0, 1.0, 2.0, None])] == ["b", "a", "c"]


def test_weights_take_precedence_over_the_number_of_votes() -> None:
    [first, second] = tally(["a", "b", "a", "b", "a"], [None] * 5, [0.25, 0.5, 0.25, 0.5, 0.25])
    assert (first.key, first.weight, first.votes) == ("b", 1.0, 2)
    assert (second.weight, second.votes) == (0.75, 3)


def test_without_votes_there_are_no_candidates() -> None:
    assert tally([None, None], [1.0, 2.0]) == []
    assert tally([], []) == []


def test_best_is_the_first_of_the_highest_scores() -> None:
    assert best([None, 1.0, 3.0, 3.0], range(4)) == 2
    assert best([None, None], range(2)) == 0
    assert best([None, -5.0], range(2)) == 1


def test_weights_of_each_weighting() -> None:
    scores = [0.0, math.log(0.5), None, math.log(0.25)]
    assert weigh(scores, "exp") == pytest.approx([1.0, 0.5, 0.0, 0.25])
    assert weigh([1000.0, 999.0], "exp") == pytest.approx([1.0, math.exp(-1)])
    assert weigh([2.0, -1.0, None, 1.0], "score") == [1.0, 0.0, 0.0, 0.5]
    assert weigh([-2.0, -1.0], "score") == [0.0, 0.0]
    assert weigh([5.0, 9.0, None, 5.0], "rank") == [0.75, 1.0, 0.0, 0.5]  # ranks 2, 1, 4, 3 of 4
    assert weigh([5.0, 9.0, None, 5.0], "rank", 2.0) == [0.5625, 1.0, 0.0, 0.25]
    assert weigh([5.0, 9.0], "rank", 0.0) == [1.0, 1.0]
    assert weigh([None, None], "exp") == [0.0, 0.0]


ANSWERS = st.sampled_from([None, "a", "b", "c", "d"])
SCORES = st.none() | st.sampled_from([0.0, 0.1, 0.2, 0.3, -1.0]) | st.floats(-1e6, 1e6)


@given(st.lists(st.tuples(ANSWERS, SCORES, st.sampled_from([0.0, 0.1, 0.2, 0.3]) | st.floats(0, 1e6)), max_size=12))
def test_tally_equals_a_plain_count(rows: list[tuple[str | None, float | None, float]]) -> None:
    found = tally([row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows])
    expected = []
    for answer in sorted({row[0] for row in rows} - {None}, key=str):
        places = [place for place, row in enumerate(rows) if row[0] == answer]
        weight = sum((Fraction(rows[place][2]) for place in places), Fraction(0))
        score = sum((Fraction(rows[place][1] or 0) for place in places), Fraction(0))
        expected.append((float(weight), float(score), -places[0], answer, len(places)))
    expected.sort(reverse=True)
    assert [(each.weight, each.score, -min(each.members), each.key, each.votes) for each in found] == expected
    for each in found:
        shown = [rows[place][1] for place in each.members]
        assert all((value is None) or (shown[0] is not None and value <= shown[0]) for value in shown)


@given(st.lists(SCORES, min_size=1, max_size=12), st.sampled_from(["exp", "score", "rank"]), st.randoms())
def test_weights_do_not_decrease_with_the_score(scores: list[float | None], weighting: str, rng: object) -> None:
    found = weigh(scores, weighting)
    assert all(0 <= weight <= 1 for weight in found)
    assert all(weight == 0 for weight, score in zip(found, scores, strict=True) if score is None)
    for one, weight in zip(scores, found, strict=True):
        for other, least in zip(scores, found, strict=True):
            if one is not None and other is not None and one > other:
                assert weight >= least
