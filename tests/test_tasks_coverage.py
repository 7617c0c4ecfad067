"""The coverage task: its lists of right answers, and the grades of answers in the style of chat models."""

import json
import string
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esamp.analysis.measures import MEASURES
from esamp.cli import main
from esamp.errors import OptionError
from esamp.study import config
from esamp.tasks import registry
from esamp.tasks.base import Item
from esamp.tasks.coverage import Answers, Coverage, CoverageOptions, questions
from esamp.tasks.coverage.words import LONGEST, phrase, words
from support.coverage_answers import RIGHT, WRONG

QUESTIONS = {question.id: question for question in questions()}
ANSWERS = {name: Answers(question) for name, question in QUESTIONS.items()}
COUNTS = {
    "us-state": 50,
    "european-country": 51,  # Kosovo and those that are partly in Asia included
    "chemical-element": 118,
    "prime": 25,
    "month": 12,
    "planet": 8,
    "rainbow-color": 7,
    "greek-letter": 24,
    "chess-piece": 6,
    "g7-member": 7,
    "african-country": 56,  # 54 members of the United Nations, Somaliland and Western Sahara
    "weekday": 7,
    "zodiac-sign": 12,
    "south-american-country": 12,
    "central-american-country": 7,
    "us-president": 45,
    "canadian-province": 10,
    "continent": 7,
    "ocean": 5,
    "great-lake": 5,
    "german-state": 16,
    "seven-sins": 7,
    "platonic-solid": 5,
    "perfect-square": 8,
    "ivy-league": 8,
    "un-permanent-member": 5,
    "eu-member": 27,
    "hogwarts-house": 4,
    "dwarf": 7,
    "si-base-unit": 7,
    "ancient-wonder": 7,
    "noble-gas": 7,
    "shakespeare-play": 39,  # the 36 of the First Folio, Pericles, The Two Noble Kinsmen and Edward III
    "season": 4,
    "card-suit": 4,
    "australian-state": 6,
    "dna-base": 4,
}


# ---- the data


def test_there_are_at_least_fifty_questions_in_file_order() -> None:
    items = Coverage.build(CoverageOptions()).items()
    assert len(items) == len(QUESTIONS) >= 50
    assert [item.id for item in items] == [f"coverage/{name}" for name in QUESTIONS]
    assert len({item.prompt for item in items}) == len(items)
    assert items[0] == Item("coverage/us-state", "Name one US state. Answer with the name only.", items[0].data)
    assert all(item.prompt.startswith("Name one ") for item in items)


def test_the_option_answers_selects_closed_or_open_questions() -> None:
    chosen = {
        wanted: Coverage.build(CoverageOptions(answers=wanted)).items()  # type: ignore[arg-type]
        for wanted in ("all", "closed", "open")
    }
    assert all(item.data["closed"] is (wanted == "closed") for wanted in ("closed", "open") for item in chosen[wanted])
    assert {item.id for item in chosen["closed"] + chosen["open"]} == {item.id for item in chosen["all"]}
    assert len(Coverage.build(CoverageOptions()).items(limit=3)) == 3
    with pytest.raises(OptionError, match="answers"):
        CoverageOptions.parse({"answers": "some"})


@pytest.mark.parametrize("name", COUNTS)
def test_closed_lists_have_their_known_size(name: str) -> None:
    assert QUESTIONS[name].closed
    assert len(QUESTIONS[name].answers) == COUNTS[name]


def test_open_lists_have_at_least_28_answers() -> None:
    for name, question in QUESTIONS.items():
        assert question.closed or len(question.answers) >= 28, name


def test_overlapping_lists_are_consistent() -> None:
    lists = {name: set(question.answers) for name, question in QUESTIONS.items()}
    assert lists["eu-member"] < lists["european-country"] < lists["country"]
    assert lists["african-country"] < lists["country"]
    assert lists["asian-country"] < lists["country"]
    assert lists["south-american-country"] | lists["central-american-country"] < lists["country"]
    assert lists["g7-member"] | lists["un-permanent-member"] < lists["country"]
    assert {"Palestine", "Taiwan", "Kosovo", "Vatican City"} < lists["country"]
    assert len(lists["country"]) == 193 + 6  # and Palestine, Vatican City, Taiwan, Kosovo, Somaliland, Western Sahara
    assert lists["noble-gas"] < lists["chemical-element"]
    assert {int(n) for n in lists["prime"]} == {n for n in range(2, 100) if all(n % d for d in range(2, n))}
    assert {int(n) for n in lists["perfect-square"]} == {n * n for n in range(2, 10)}


def test_no_name_belongs_to_two_answers() -> None:
    for question in QUESTIONS.values():
        names = [(phrase(name), answer) for answer, more in question.answers.items() for name in (answer, *more)]
        owner = dict(names)
        assert len(owner) == len(names), question.id
        assert not owner.keys() & {phrase(other) for other in question.others}, question.id


@pytest.mark.parametrize("name", QUESTIONS)
def test_every_name_is_graded_as_its_answer(name: str) -> None:
    for answer, more in QUESTIONS[name].answers.items():
        for written in (answer, *more):
            for text in (written, f"**{written.upper()}**.", f"Sure! One answer is {written}, because I like it."):
                grade = ANSWERS[name].grade(text)
                assert (grade.correct, grade.canonical) == (True, answer), text


@pytest.mark.parametrize("name", QUESTIONS)
def test_the_words_of_a_question_are_not_an_answer(name: str) -> None:
    prompt = QUESTIONS[name].prompt
    wanted = prompt.split(". ")[0].removeprefix("Name ")
    for text in (prompt, f"{wanted}:", f"Here is {wanted}", f"Sure! The name of {wanted} is", f"{wanted.upper()}?"):
        grade = ANSWERS[name].grade(text)
        assert (grade.correct, grade.canonical) == (False, None), text


# ---- the grader


@pytest.mark.parametrize(("name", "text", "canonical"), RIGHT, ids=lambda value: ascii(value)[:50])
def test_right_answers_are_correct(name: str, text: str, canonical: str) -> None:
    grade = ANSWERS[name].grade(text)
    assert (grade.correct, grade.canonical, grade.reason) == (True, canonical, "correct")


@pytest.mark.parametrize(("name", "text", "reason"), WRONG, ids=lambda value: ascii(value)[:50])
def test_wrong_answers_are_incorrect_with_a_reason(name: str, text: str, reason: str) -> None:
    grade = ANSWERS[name].grade(text)
    assert (grade.correct, grade.reason) == (False, reason)
    assert (grade.canonical is None) is (reason != "not a right answer")


def test_equal_wrong_answers_have_one_canonical_form() -> None:
    texts = ("Toronto", "**toronto**.", "One US state is Toronto.", "Sure! The answer is: Toronto")
    assert {ANSWERS["us-state"].grade(text).canonical for text in texts} == {"toronto"}


def test_an_item_outside_of_the_task_is_an_error() -> None:
    task = Coverage.build(CoverageOptions(answers="closed"))
    assert task.grade(task.items()[0], "Ohio").canonical == "Ohio"
    with pytest.raises(TypeError, match="coverage/fruit is not an item of this coverage task"):
        task.grade(Item("coverage/fruit", ""), "Mango")


# ---- any text

NAMES = st.sampled_from(
    [(question.id, answer) for question in QUESTIONS.values() if question.closed for answer in question.answers]
)
OPENINGS = ("", "Sure! ", "Of course! ", "Answer: ", "The answer is ", "Here you go:\n\n", "1. ", "- ", "I would say ")
CLOSINGS = ("", ".", "!", "**", " (my favorite)", ".\n\nI hope that this helps.", "\n", ", because it is well known.")
PIECES = st.sampled_from(
    [
        "Texas",
        "Ohio",
        "17",
        "2",
        " ",
        ",",
        ".",
        "\n",
        ":",
        "-",
        "1.",
        "2.",
        "is",
        "not",
        "the",
        "and",
        "**",
        "'",
        "é",
        "US",
    ]
)


@given(NAMES, st.sampled_from(OPENINGS), st.sampled_from(CLOSINGS))
def test_fillers_around_a_right_answer_do_not_change_the_grade(
    which: tuple[str, str], opening: str, closing: str
) -> None:
    name, answer = which
    grade = ANSWERS[name].grade(opening + answer + closing)
    assert (grade.correct, grade.canonical) == (True, answer)


@given(st.sampled_from(sorted(ANSWERS)), st.one_of(st.text(max_size=80), st.lists(PIECES, max_size=20).map("".join)))
def test_any_text_has_a_consistent_grade(name: str, text: str) -> None:
    grade = ANSWERS[name].grade(text)
    right = QUESTIONS[name].answers
    assert (grade.canonical in right) is grade.correct
    assert grade.correct is (grade.reason == "correct")
    assert grade.canonical != ""
    assert ANSWERS[name].grade(text) == grade


def test_numbers_are_whole_words() -> None:
    written = [word.text for word in words("17th -17 17.5 1,017 17.")]
    assert written == ["17th", "-17", "17.5", "1,017", "17"]


@given(st.lists(st.text(alphabet=string.ascii_letters + " \n.,:-'é1", max_size=12), max_size=10).map(" ".join))
def test_words_cover_all_letters_and_digits_of_the_text(text: str) -> None:
    together = "".join(word.text for word in words(text))
    kept = [sign for sign in unicodedata.normalize("NFD", text.casefold()) if sign.isascii() and sign.isalnum()]
    assert [sign for sign in together if sign.isalnum()] == kept


@pytest.mark.parametrize(
    "piece", ["Texas ", "1.", "a.", "'", "*.", "1,", ":\n", "\n", "-", "é", "Sure! ", "not ", "St. "]
)
def test_a_text_of_a_megabyte_is_graded_by_its_beginning(piece: str) -> None:
    long = piece * (2**20 // len(piece))
    assert len(words(long)) <= LONGEST
    for text in (long, long + "Texas", " " * 2**20 + "Texas"):
        grade = ANSWERS["us-state"].grade(text)
        assert grade.correct is (text.strip() == "Texas")


# ---- the task in a study


def test_coverage_is_listed_with_its_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert registry.get("coverage") is Coverage
    assert main(["study", "tasks", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["coverage"]
    assert listed["graded"]
    assert listed["options"]["answers"]["default"] == "all"


def test_reports_have_a_measure_of_distinct_right_answers() -> None:
    summaries = {measure.name: measure.summary for measure in MEASURES}
    assert summaries["distinct"] == "different right answers of a group"
    assert summaries["pass@1"] == "share of right samples"


@pytest.mark.parametrize("name", ["coverage-smollm2", "gsm8k-smollm2", "writing-smollm2"])
def test_each_study_file_begins_with_question_comparison_and_size(root: Path, name: str) -> None:
    path = root / "studies" / f"{name}.toml"
    head = path.read_text().partition("\nname = ")[0]
    assert all(line.startswith("#") for line in head.splitlines())
    for part in ("Question:", "Primary comparison:", "Size:"):
        assert f"# {part}" in head
    study = config.read(path)
    assert study.name == name
    assert [model.model for model in study.models] == ["smollm2"]
