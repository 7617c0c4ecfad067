"""Answers with probabilities in tagged text and in JSON."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esamp.search.stated_answers import StatedAnswer, parse, weights
from support.linear_time import assert_linear

TAGGED = """Sure! Here you go:
<response><text>First one</text><probability>0.5</probability></response>
<response>
  <text>Second,
with two lines</text>
  <probability> 25% </probability>
</response>
"""


def plain(text: str) -> list[tuple[str, float | None]]:
    return [(each.text, each.probability) for each in parse(text)]


def test_answers_in_tags_are_read_in_their_order() -> None:
    assert plain(TAGGED) == [("First one", 0.5), ("Second,\nwith two lines", 0.25)]
    assert all(each.whole for each in parse(TAGGED))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("<RESPONSE><Text>a</TEXT><Probability>.5</PROBABILITY></RESPONSE>", [("a", 0.5)]),
        ("<response><probability>0.1</probability><text>a</text></response>", [("a", 0.1)]),
        ("<response>a<probability>0.1</probability></response>", [("a", 0.1)]),
        ("<response><text>a</text></response>", [("a", None)]),
        ("<response id='1'><text lang='en'>a</text></response>", [("a", None)]),
        ("<text>a</text><probability>0.1</probability>\n<text>b</text>", [("a", 0.1), ("b", None)]),
        ("<response><text>1 < 2 & 3 > 2</text></response>", [("1 < 2 & 3 > 2", None)]),
        ("<response><text>a</text><probability>high</probability></response>", [("a", None)]),
        ("<response><text>a</text><probability>-0.1</probability></response>", [("a", None)]),
        ("<response><text>a</text><probability>1.5</probability></response>", [("a", None)]),
        ("<response><text>a</text><probability>nan</probability></response>", [("a", None)]),
        ("<response><text>a</text><probability>1e-3</probability></response>", [("a", 0.001)]),
        ("<response><text>a</text><probability>1e999</probability></response>", [("a", None)]),
        ("<response><text>a</text><probability>100 %</probability></response>", [("a", 1.0)]),
        ("<response><text> </text><probability>0.1</probability></response>", []),
        ("<response></response><response></response>", []),
        ("</response></text></probability>", []),
        ("<probability>0.5</probability>", []),
        ("< response >a</ response >", []),
        ("nothing of the kind", []),
        ("", []),
    ],
)
def test_tags_are_read_leniently(text: str, found: list[tuple[str, float | None]]) -> None:
    assert plain(text) == found


def test_an_answer_that_was_cut_off_is_not_whole() -> None:
    text = "<response><text>a</text><probability>0.5</probability></response><response><text>b and"
    assert parse(text) == [StatedAnswer("a", 0.5), StatedAnswer("b and", None, whole=False)]
    assert [each.whole for each in parse("<text>a\n<text>b")] == [True, False]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            '{"responses": [{"text": "a", "probability": 0.5}, {"text": "b", "probability": 0.1}]}',
            [("a", 0.5), ("b", 0.1)],
        ),
        ('```json\n[{"response": "a", "prob": "20%"}]\n```', [("a", 0.2)]),
        ('{"text": "a", "probability": 0.5}\n{"text": "b"}', [("a", 0.5), ("b", None)]),
        ('{"text": 42, "probability": 1}', [("42", 1.0)]),
        ('{"text": "a", "probability": true}', [("a", None)]),
        ('{"text": "a", "probability": NaN}', [("a", None)]),
        ('{"text": "a", "probability": 1e999}', [("a", None)]),
        ('{"text": "a", "probability": [0.5]}', [("a", None)]),
        ('{"text": null, "probability": 0.5}', []),
        ('{"text": "", "probability": 0.5}', []),
        ('Set {x} and [1, 2]: {"text": "a", "p": 0.5} end', [("a", 0.5)]),
        ('{"a": {"b": {"text": "deep"}}}', [("deep", None)]),
        ('{"responses": [{"text": "a", "probability": 0.5}, {"text": "b", "proba', [("a", 0.5)]),
        ('{"number": ' + "9" * 5000 + ', "text": "a"}', []),
        ("[1, 2, 3]", []),
        ("{}", []),
    ],
)
def test_answers_in_json_are_read_leniently(text: str, found: list[tuple[str, float | None]]) -> None:
    assert plain(text) == found


def test_weights_are_normalised_probabilities() -> None:
    assert weights([0.5, 0.25, 0.25]) == [0.5, 0.25, 0.25]
    assert weights([0.3, 0.1]) == pytest.approx([0.75, 0.25])
    assert weights([0.25, None, 0.75]) == pytest.approx([1 / 6, 1 / 3, 1 / 2])  # the mean of 0.25 and 0.75 is 0.5
    assert weights([None, None]) == [0.5, 0.5]
    assert weights([0.0, 0.0]) == [0.5, 0.5]
    assert weights([5e-324, 5e-324]) == [0.5, 0.5]


NASTY = st.text(alphabet='<>/{}[]":,0.1texprobailyns \n', max_size=300)
PIECES = st.lists(
    st.sampled_from(
        [
            "<response>",
            "</response>",
            "<text>",
            "</text>",
            "<probability>",
            "</probability>",
            "0.5",
            "a",
            "{",
            "}",
            '"text"',
        ]
    ),
    max_size=40,
).map("".join)


@given(st.text(max_size=300) | NASTY | PIECES)
def test_any_text_gives_stripped_answers_and_valid_probabilities(text: str) -> None:
    for each in parse(text):
        assert each.text == each.text.strip() != ""
        assert each.probability is None or 0 <= each.probability <= 1


WORDS = st.text(alphabet=st.characters(exclude_characters="<>", exclude_categories=["C"]), min_size=1).map(str.strip)
ROWS = st.lists(st.tuples(WORDS.filter(bool), st.floats(0, 1)), min_size=1, max_size=8)


@given(ROWS)
def test_replies_in_the_requested_format_are_read_exactly(rows: list[tuple[str, float]]) -> None:
    tagged = "\n".join(
        f"<response><text>{text}</text><probability>{p:.6f}</probability></response>" for text, p in rows
    )
    assert plain(tagged) == [(text, pytest.approx(p, abs=1e-6)) for text, p in rows]
    as_json = json.dumps({"responses": [{"text": text, "probability": p} for text, p in rows]})
    assert plain(as_json) == rows


@pytest.mark.parametrize(
    "piece",
    ["<response>", "<text>", "<", "<response", "{", "[", "{}", "[]", '{"text": 1}', '{"a":', "<probability>", '"', "9"],
)
def test_parsing_time_is_linear_in_hostile_texts(piece: str) -> None:
    assert_linear(parse, lambda size: piece * (size // len(piece)), 250_000)
