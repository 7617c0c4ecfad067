"""The answer in a text, and which answers are equal."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esamp.search.answers import READERS, canonical, key, read
from esamp.search.options import Reading
from support.linear_time import assert_linear

TRACE = "try 8 - 3 = 5 left 5 9 5\n5 * 5 = 25 not 24\ntry 8 * 3 = 24 yes\n24 = 8 * (9 - 6)\nAnswer: 8 * (9 - (3 + 3))\n"


@pytest.mark.parametrize(
    ("text", "reading", "answer"),
    [
        (TRACE, "auto", "8 * (9 - (3 + 3))"),
        (TRACE, "answer", "8 * (9 - (3 + 3))"),
        (TRACE, "number", "3"),
        (TRACE, "line", "Answer: 8 * (9 - (3 + 3))"),
        ("Answer: 3\nno,\nanswer : 4", "answer", "4"),
        ("So the answer is 18.", "answer", "18."),
        ("**Final Answer**: 7", "answer", "7"),
        ("**Answer:** 7", "answer", "7"),
        ("Answer:\n\n  42\nbye", "answer", "42"),
        ("Answer:", "answer", None),
        ("the answers: 4", "answer", None),
        (r"so \boxed{5} or \boxed{\frac{1}{2}} it is", "boxed", r"\frac{1}{2}"),
        (r"\boxed{\boxed{3}}", "boxed", r"\boxed{3}"),
        (r"\boxed {a\}b} {", "boxed", r"a\}b"),
        (r"first \boxed{1} then \boxed{2", "boxed", None),  # a later box that is cut off withdraws the first
        (r"\boxed{never", "boxed", None),
        (r"\boxed{5} of {x} }", "boxed", "5"),
        ("} \\boxed{} ", "boxed", None),
        (r"Answer: 3 and \boxed{4}", "auto", "4"),
        ("one line", "auto", "one line"),
        ("two\nlines", "auto", None),
        ("a 1,234.50 b -7, c", "number", "-7"),
        ("it is 1,234.50 euros", "number", "1,234.50"),
        ("5-3", "number", "3"),
        ("x = −3", "number", "-3"),
        ("none here", "number", None),
        ("a\n b \n\n", "line", "b"),
        (" \n ", "line", None),
        ("  a \n b", "text", "a \n b"),
        ("", "text", None),
    ],
)
def test_each_reading_finds_its_answer(text: str, reading: Reading, answer: str | None) -> None:
    assert read(text, reading) == answer


@pytest.mark.parametrize(
    "same",
    [
        ("73", "073", "73.0", "73.", "+73", "$73", "**73**", " 73 ", r"$73$", r"\(73\)", "73.00", "`73`"),
        ("-3", "−3", "- 3", "-3.0"),
        ("0", "-0", "0.0", "000", "-0.00"),
        (".5", "0.5", "0.50", "00.5"),
        ("1234567", "1,234,567", "1,234,567.0"),
        ("8 * (9 - (3 + 3))", "(9-(3+3))*8", "8 × (9 − 3 − 3)", "8 * (9 - 3 - 3) = 24"),
        ("3 * 8 = 24", "8*3", "8*3=24."),
        ("(A)", "a", "A.", "A)", "A"),
        ("Paris", "paris.", " PARIS ", "*Paris*"),
        ("New  York", "new york"),
    ],
    ids=lambda same: same[0],
)
def test_equal_answers_have_one_canonical_form(same: tuple[str, ...]) -> None:
    assert len({canonical(each) for each in same}) == 1, [canonical(each) for each in same]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("73", "730"),
        ("7.3", "73"),
        ("3", "-3"),
        ("8 - 3", "3 - 8"),
        ("1 / 2", "2 / 1"),
        ("8 * 3 = 25", "8 * 3"),
        ("8 * 3", "24"),
        ("1 / 0", "0"),
        ("AB", "BA"),
        ("1e3", "1"),
        ("1,23", "123"),
    ],
)
def test_different_answers_have_different_canonical_forms(one: str, other: str) -> None:
    assert canonical(one) != canonical(other)


def test_whole_texts_are_compared_up_to_white_space() -> None:
    assert key("a  b\nC", "text") == "a b C"
    assert key("073", "text") != key("73", "text")
    assert key("Answer: ***", "answer") is None


@pytest.mark.parametrize("reading", READERS)
@given(text=st.text(max_size=200) | st.text(alphabet="\\boxed{}answer: is*$.,0123456789-+/()\n", max_size=200))
def test_keys_of_any_text_are_canonical_or_none(reading: Reading, text: str) -> None:
    found = key(text, reading)
    assert found is None or found
    if found is not None and reading != "text":
        assert canonical(found) == found


@pytest.mark.parametrize("reading", READERS)
@pytest.mark.parametrize(
    "piece",
    [
        "\\boxed{",
        "\\boxed" + " " * 50,
        "answer" + " " * 50,
        "answer: ",
        "1,234",
        "1",
        "(",
        "{",
        "}",
        "\n",
        "-",
        "$",
        "9.",
    ],
)
def test_reading_time_is_linear_in_hostile_texts(reading: Reading, piece: str) -> None:
    assert_linear(lambda text: key(text, reading), lambda size: piece * (size // len(piece)), 100_000)
