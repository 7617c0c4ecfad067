"""GPQA: reading the chosen letter, the fixed order of options, and the privacy of the questions."""

import base64
import json
import re
import zlib
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esamp.cli import main
from esamp.engines.base import Completion, Request, Sample
from esamp.errors import InputError
from esamp.study.grid import item_key
from esamp.study.records import graded_record
from esamp.tasks.base import Item
from esamp.tasks.gpqa import COLUMNS, GPQA, last_letter
from esamp.tasks.sources import SourceOptions
from support.gpqa_questions import ROWS, SECRETS, write_csv


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("Answer: B", "B"),
        ("Answer: A\nno:\nAnswer: B", "B"),
        ("**Answer: B**", "B"),
        ("**Answer:** B", "B"),
        ("**Answer**: **B**.", "B"),
        ("Answer: (B)", "B"),
        ("answer: b", "B"),
        ("Final Answer : D.", "D"),
        ("Answer:\n\nC", "C"),
        (r"so \boxed{C}", "C"),
        (r"Answer: $\boxed{\text{C}}$", "C"),
        (r"\boxed{(D)}", "D"),
        (r"\boxed{A}, Answer: C", "C"),
        (r"Answer: C, \boxed{A}", "A"),
        ("Answer: B) a long tail", "B"),
        ("Answer: option C", "C"),
        ("Answer: Because", None),
        ("Answer: C-H bonds", None),
        ("Answer: D2O", None),
        ("Answer: A or B", None),
        ("Answer: A, B", None),
        ("Answer: A/B", None),
        ("Answer: E", None),
        ("Answer: X", None),
        ("It must be B", None),
        ("myanswer: B", None),
        (r"\boxed{BC}", None),
        ("Answer: A. This answer: be careful", "A"),
        ("", None),
    ],
    ids=ascii,
)
def test_the_last_letter_given_as_an_answer_is_found(text: str, letter: str | None) -> None:
    assert last_letter(text) == letter


@given(st.text(alphabet="Answer: ABCD()\\boxed{}*\n", max_size=80))
def test_any_text_yields_a_letter_or_none(text: str) -> None:
    assert last_letter(text) in {"A", "B", "C", "D", None}
    assert last_letter(f"{text}\nAnswer: C") == "C"


@pytest.mark.timeout(20)
def test_long_texts_finish_within_the_time_limit() -> None:
    for piece in ("answer", "answer: ", r"\boxed{", "answer" + " *" * 50, "answer: ((((", " " * 50):
        assert last_letter(piece * 20_000) is None


def test_the_order_of_options_is_fixed_by_the_record_id(tmp_path: Path) -> None:
    items = GPQA.build(SourceOptions(data=write_csv(tmp_path))).items()
    assert items == GPQA.build(SourceOptions(data=write_csv(tmp_path))).items()
    for row, item in zip(ROWS, items, strict=True):
        places = {column: item.prompt.index(f") {row[column]}") - 1 for column in COLUMNS}
        letters = {column: item.prompt[place] for column, place in places.items()}
        assert item.data == {"answer": letters["Correct Answer"]}
        assert sorted(letters.values()) == list("ABCD")
        assert item.prompt.startswith(row["Question"])
        assert row["Explanation"] not in item.prompt
    assert items[0].id == "gpqa/e58c3af46f84"  # other ids or another order would make stored records inconsistent
    assert [item.data["answer"] for item in items] == list("BAACDCCB")


def test_right_options_are_spread_evenly_over_the_letters(tmp_path: Path) -> None:
    rows = [ROWS[0] | {"Record ID": f"rec{place}"} for place in range(800)]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    counts = Counter(item.data["answer"] for item in GPQA.build(SourceOptions(data=str(tmp_path / "a.json"))).items())
    assert all(150 < counts[letter] < 250 for letter in "ABCD")


def test_grades_contain_only_the_letter() -> None:
    item = Item("gpqa/x", "the question", {"answer": "C"})
    task = GPQA([item])
    for text, correct, letter in (
        ("tapirism. Answer: C", True, "C"),
        ("Answer: A", False, "A"),
        ("tapirs", False, None),
    ):
        grade = task.grade(item, text)
        assert (grade.correct, grade.answer, grade.canonical) == (correct, letter, letter)
        assert grade.reason in {"correct", "another letter", "no answer"}


def test_errors_name_the_row_and_quote_nothing(tmp_path: Path) -> None:
    for rows in ([ROWS[0], ROWS[0]], [{"Question": ROWS[0]["Question"]}], [{"Correct Answer": "wombatine"}]):
        (tmp_path / "a.json").write_text(json.dumps(rows))
        with pytest.raises(InputError, match="gpqa, question") as error:
            GPQA.build(SourceOptions(data=str(tmp_path / "a.json")))
        assert not any(secret in str(error.value) for secret in SECRETS)
    (tmp_path / "a.jsonl").write_text(json.dumps(ROWS[0])[:-1])
    with pytest.raises(InputError, match="not valid JSON") as error:
        GPQA.build(SourceOptions(data=str(tmp_path / "a.jsonl")))
    assert not any(secret in str(error.value) for secret in SECRETS)


def test_records_and_keys_contain_no_text_of_a_question(tmp_path: Path) -> None:
    task = GPQA.build(SourceOptions(data=write_csv(tmp_path)))
    item = task.items()[0]
    sample = Sample(0, f"{item.prompt}\nAnswer: {item.data['answer']}", (1, 2, 3), "stop")
    completion = Completion(
        Request(item.id, item.prompt, method="vanilla"), (sample,), 5, 1.0, details={"prompt": item.prompt}
    )
    kept = graded_record(task, item, completion)
    text = json.dumps(kept.as_json()) + item.id + item_key(item)
    assert not any(secret in text for secret in SECRETS)
    assert (kept.samples[0].correct, kept.samples[0].canonical) == (True, item.data["answer"])


@pytest.mark.timeout(300)
def test_a_study_writes_and_prints_no_text_of_a_question(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data").mkdir()
    study, store, out = tmp_path / "study.toml", tmp_path / "store", tmp_path / "report"
    study.write_text(f"""
        name = "private"
        sampling = {{ max_tokens = 6 }}
        groups = [2]
        [[models]]
        model = "countdown"
        [[tasks]]
        task = "gpqa"
        limit = 2
        options = {{ data = "{write_csv(tmp_path / "data")}" }}
        [[methods]]
        method = "vanilla"
        [[methods]]
        method = "majority_vote"
    """)
    assert main(["study", "run", str(study), "--store", str(store)]) == 0
    assert main(["study", "status", str(study), "--store", str(store), "--json"]) == 0
    assert main(["study", "report", str(study), "--store", str(store), "--out", str(out)]) == 0
    shown = capsys.readouterr()
    files = [path for folder in (store, out) for path in folder.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".jsonl", ".md", ".csv", ".html", ".svg", ".png"}
    texts = {path: path.read_text(errors="replace") for path in files if path.suffix != ".png"}
    chunks = re.findall(r'<script type="text/plain"[^>]*>([^<]*)<', texts[out / "index.html"])
    assert len(chunks) == 2  # problems
    unpacked = [zlib.decompress(base64.b64decode(chunk)).decode() for chunk in chunks]
    output = "".join([*texts.values(), *unpacked, *map(str, files), shown.out, shown.err])
    assert "gpqa/" in output
    assert not [secret for secret in SECRETS if secret in output]
    for file in store.glob("cells/*/records.jsonl"):
        for line in file.read_text().splitlines():
            values = json.loads(line)
            assert {(each["text"], each["token_ids"]) for each in values["samples"]} == {(None, None)}
