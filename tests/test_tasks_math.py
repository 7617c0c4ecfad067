"""Contests, MATH-500 and GSM8K: loading, and grading of answers that naive graders get wrong."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esamp.errors import InputError, OptionError
from esamp.tasks import registry
from esamp.tasks.base import Item
from esamp.tasks.boxed import last_boxed
from esamp.tasks.contest import Contest, ContestOptions, whole
from esamp.tasks.math_answer import GSM8K, Math500
from esamp.tasks.math_verifier import MathVerifier
from esamp.tasks.sources import SourceOptions, read_rows

pytest.importorskip("math_verify", reason="math-verify is not installed: pip install -e '.[tasks]'")
SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="module")
def verifier() -> Iterator[MathVerifier]:
    with MathVerifier() as found:
        yield found


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        (r"\boxed{073}", "073"),
        (r"first \boxed{1}, no: \boxed{2}.", "2"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed {x}", "x"),
        (r"\fbox{7}", "7"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{1 \boxed{2} 3}", r"1 \boxed{2} 3"),
        (r"\boxed{12", None),
        (r"\boxed{1} and then \boxed{2", None),
        (r"\boxed{}", None),
        (r"\boxed 5", "5"),
        (r"}}}\boxed{3}{{{", "3"),
        ("", None),
        ("the answer is 73", None),
    ],
    ids=str,
)
def test_the_last_complete_box_counts(text: str, inside: str | None) -> None:
    assert last_boxed(text) == inside


@given(st.text(alphabet=r"\boxed{}1 ", max_size=60))
def test_any_text_yields_a_last_box_or_none(text: str) -> None:
    found = last_boxed(text)
    assert found is None or (found in text and found.replace("\\{", "").count("{") <= text.count("{"))


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("073", 73),
        ("0", 0),
        ("999", 999),
        ("73.0", 73),
        ("1,234", 1234),
        ("1{,}234", 1234),
        (r"\text{73}", 73),
        ("x = 73", 73),
        ("$73$", 73),
        ("73.", 73),
        (r"45^\circ", 45),
        (r"\mathbf{204}", 204),
        ("73.5", None),
        ("7 3 apples", None),
        ("1,23", None),
        ("-5", -5),
        (r"\frac{1}{2}", None),
        ("", None),
        ("٣", None),
        ("9" * 400, None),
    ],
    ids=str,
)
def test_whole_numbers_are_read_in_every_notation(text: str, number: int | None) -> None:
    assert whole(text) == number


@pytest.mark.parametrize(
    ("text", "correct"),
    [
        (r"so \boxed{073}", True),
        (r"\boxed{72} no, \boxed{73}", True),
        (r"\boxed{73} no, \boxed{72}", False),
        ("it must be 73", False),  # cut off before the box: the last number is not an answer
        (r"\boxed{7", False),
        ("Answer: 73", False),
        ("", False),
        (r"\boxed{73 \text{ apples}}", True),
        (r"\boxed{73 \text{ or } 72}", False),
        ("\0\ud800 \\boxed{73}", True),
    ],
    ids=["zeros", "two boxes", "corrected wrongly", "cut off", "half a box", "no box", "empty", "unit", "two", "bytes"],
)
def test_a_contest_grades_only_the_last_box(text: str, correct: bool) -> None:
    item = Item("aime24/00", "", {"answer": 73})
    assert Contest([item]).grade(item, text).correct is correct


@pytest.mark.parametrize(
    ("gold", "text", "correct"),
    [
        (r"\frac{1}{2}", r"\boxed{0.5}", True),
        (r"\frac{1}{2}", r"\boxed{\dfrac{2}{4}}", True),
        (r"\frac{1}{2}", r"\boxed{1/3}", False),
        (r"\left( 3, \frac{\pi}{2} \right)", r"\boxed{(3, \pi/2)}", True),
        ("5", r"\boxed{5\text{ cm}}", True),
        ("5", r"first \boxed{4}. Finally \boxed{5}", True),
        ("5", "#### 5", True),
        ("18", "16 - 3 = 13, so\n#### 18", True),
        ("18", "#### $18", True),
        ("1234", "#### 1,234", True),
        ("18", "it could be 18", False),
        ("18", "", False),
        ("x^2+1", r"\boxed{1+x^2}", True),
        ("18", r"\boxed{" + "(" * 1500 + "18" + ")" * 1500 + "}", False),
        ("18", r"\boxed{" + "9" * 5000 + "}", False),
        pytest.param("18", r"\boxed{10^{10^{10^{10}}}}", False, marks=pytest.mark.slow),  # until the time limit
    ],
    ids=lambda value: str(value)[:30],
)
def test_answers_are_compared_mathematically(verifier: MathVerifier, gold: str, text: str, correct: bool) -> None:
    item = Item("math500/0000", "", {"answer": gold})
    assert Math500([item], verifier).grade(item, text).correct is correct


def test_equal_answers_have_one_canonical_form(verifier: MathVerifier) -> None:
    item = Item("math500/0000", "", {"answer": r"\frac{1}{2}"})
    task = Math500([item], verifier)
    forms = {task.grade(item, text).canonical for text in (r"\boxed{0.5}", r"\boxed{\frac{2}{4}}")}
    assert forms == {r"\frac{1}{2}"}


def test_files_of_every_format_are_read(tmp_path: Path) -> None:
    rows = [{"problem": "1 + 1?", "answer": "2"}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "a.json").write_text(json.dumps(rows))
    (tmp_path / "a.csv").write_text("problem,answer\n1 + 1?,2\n")
    with gzip.open(tmp_path / "a.jsonl.gz", "wt") as file:
        file.write(json.dumps(rows[0]))
    for name in ("a.jsonl", "a.json", "a.csv", "a.jsonl.gz"):
        assert read_rows(tmp_path / name) == rows, name
    task = Math500.build(SourceOptions(data=str(tmp_path / "a.jsonl")))
    assert task.items()[0].data == {"answer": "2"}
    assert task.items()[0].prompt.startswith("1 + 1?\n")


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.jsonl", b"{", "a.jsonl:1: not valid JSON"),
        ("a.jsonl", b"[1]", "expected an object"),
        ("a.jsonl", b"\xff\xfe", "is not UTF-8"),
        ("a.json", b"{}", "should hold a list"),
        ("a.jsonl.gz", b"no gzip", "cannot read"),
        ("a.jsonl", b'{"other": 1}', "has no field 'problem' or 'question'"),
    ],
    ids=["half", "no object", "bytes", "no list", "no gzip", "other"],
)
def test_invalid_files_are_errors(tmp_path: Path, name: str, content: bytes, sentence: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=sentence):
        Math500.build(SourceOptions(data=str(tmp_path / name)))
    with pytest.raises(InputError, match="cannot read"):
        Math500.build(SourceOptions(data=str(tmp_path / "nothing.jsonl")))


def test_every_task_is_found_by_its_name() -> None:
    assert {"aime", "countdown", "game24", "gsm8k", "math500"} <= set(registry.names())
    for name in registry.names():
        task = registry.get(name)
        assert task.name == name
        assert task.summary
        assert task.source
    with pytest.raises(OptionError, match="unknown task 'nothing'"):
        registry.get("nothing")


@pytest.mark.skipif(not SHARED.is_dir(), reason="the benchmark files are not here")
def test_the_published_files_load_and_their_own_answers_are_right(verifier: MathVerifier) -> None:
    for contest in ("aime24", "aime25"):
        file = str(SHARED / "aime" / f"{contest}.jsonl")
        task = Contest.build(ContestOptions.parse({"contest": contest, "data": file}))
        items = task.items()
        assert len(items) == 30
        for item in items:
            assert task.grade(item, f"\\boxed{{0{item.data['answer']}}}").correct
            assert not task.grade(item, f"\\boxed{{{int(str(item.data['answer'])) + 1}}}").correct
    math = Math500.build(SourceOptions(data=str(SHARED / "math" / "math500.jsonl")))
    assert len(math.items()) == 500
    school = GSM8K.build(SourceOptions(data=str(SHARED / "math" / "gsm8k_test.jsonl")))
    assert len(school.items()) == 1319
    for task, step in ((math, 25), (school, 100)):
        for item in task.items()[::step]:
            assert task.grade(item, f"so \\boxed{{{item.data['answer']}}}").correct, item.id
            assert not task.grade(item, "so \\boxed{987654321}").correct, item.id
