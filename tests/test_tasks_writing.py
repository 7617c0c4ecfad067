"""Creative writing: cut points of books, the constraint on passages, and reports of ungraded tasks."""

import csv
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esamp.analysis.measures import MEASURES
from esamp.cli import main
from esamp.errors import InputError, OptionError
from esamp.study import config
from esamp.study.grid import cells
from esamp.tasks import registry
from esamp.tasks.base import UNGRADED, Item
from esamp.tasks.continuation import Continuation, ContinuationOptions
from esamp.tasks.noveltybench import NoveltyBench
from esamp.tasks.sources import SourceOptions
from esamp.tasks.tot_text import ToTText, ToTTextOptions, sentences

SHARED = Path(__file__).parents[2] / "shared" / "data" / "writing"
SHEEP = ["It was late.", 'She said "no".', "The sheep didn't mind.", "Why?"]
ITEM = Item("tot_text/000", "", {"sentences": SHEEP})


def book(folder: Path, words: int) -> str:
    path = folder / "book.txt"
    path.write_text("\n".join(f"w{place}  x" for place in range(words // 2)))
    return str(path)


def test_a_book_is_cut_in_its_middle(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text("﻿one two\n\nthree  four five six seven eight nine\n")
    task = Continuation.build(ContinuationOptions(data=str(tmp_path / "book.txt"), words=3))
    (item,) = task.items()  # nine words: the first half has four
    assert (item.id, item.prompt) == ("continuation/book/0000004", "two\n\nthree  four")
    assert task.grade(item, "anything") == UNGRADED


def test_cut_points_are_evenly_spaced(tmp_path: Path) -> None:
    task = Continuation.build(ContinuationOptions(data=book(tmp_path, 400), places=3))
    assert [item.id[-7:] for item in task.items()] == ["0000100", "0000200", "0000300"]
    assert all(len(item.prompt.split()) == 32 for item in task.items())
    assert task.items()[1].prompt == "\n".join(f"w{place}  x" for place in range(84, 100))
    assert len(task.items(limit=2)) == 2
    with pytest.raises(InputError, match="400 words: too short for 20 places with 32"):
        Continuation.build(ContinuationOptions(data=book(tmp_path, 400), places=20))


@pytest.mark.parametrize("name", ["continuation", "tot_text"])
def test_missing_and_invalid_text_files_are_errors(name: str, tmp_path: Path) -> None:
    kind = registry.get(name)
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xff")
    for data, sentence in ((None, "reads a local file"), ("nothing.txt", "cannot read"), ("bytes.txt", "not UTF-8")):
        with pytest.raises(InputError, match=sentence):
            kind.build(kind.options.parse({"data": data and str(tmp_path / data)}))
    with pytest.raises(OptionError, match="places"):
        ContinuationOptions.parse({"places": 0})


def passage(*ends: str) -> str:
    return "\n\n".join(f"Some words before it. {end}" for end in ends)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (passage(*SHEEP), "correct"),
        ("Plan: one, two.\n\nPassage:\n" + passage(*SHEEP), "correct"),
        ("**Passage:** " + passage(*SHEEP) + "\n\n", "correct"),
        ("Passage: one\n\nBetter:\n\nPassage:\n" + passage(*SHEEP), "correct"),
        (passage(*SHEEP).replace('"no"', "“no”").replace("didn't", "didn’t"), "correct"),
        (passage(*SHEEP).replace("The sheep", "The\n  sheep"), "correct"),
        (passage(*SHEEP).replace("\n\n", "\n \r\n\n"), "correct"),
        (passage(*(f'"{sentence}"' for sentence in SHEEP)), "correct"),
        (passage(*(f"**{sentence}**" for sentence in SHEEP)), "correct"),
        (passage(*SHEEP[:3]), "3 paragraphs, not 4"),
        (passage(*SHEEP, "More."), "5 paragraphs, not 4"),
        ("", "0 paragraphs, not 4"),
        (passage(SHEEP[1], SHEEP[0], *SHEEP[2:]), "paragraph 1 does not end with its sentence"),
        (passage(*SHEEP[:2], "the sheep didn't mind.", SHEEP[3]), "paragraph 3 does not end with its sentence"),
        (passage(*SHEEP[:3], "Why? Because."), "paragraph 4 does not end with its sentence"),
        (passage(*SHEEP[:3], "xWhy?"), "paragraph 4 does not end with its sentence"),
        (passage(*SHEEP).replace("It was late.", "It was late"), "paragraph 1 does not end with its sentence"),
    ],
    ids=lambda value: ascii(value)[-40:],
)
def test_passages_are_graded_by_the_ends_of_their_paragraphs(text: str, reason: str) -> None:
    grade = ToTText([ITEM]).grade(ITEM, text)
    assert grade.reason == reason
    assert grade.correct is (reason == "correct")
    assert (grade.canonical is None) is ("paragraphs" in reason)


@given(st.text(alphabet='Why? no."*_\n\r :Passage', max_size=60))
def test_any_text_gets_a_grade(text: str) -> None:
    assert not ToTText([ITEM]).grade(ITEM, text).correct


def test_a_line_is_split_into_its_sentences() -> None:
    assert sentences('One. Two! "Three?" Four.') == ["One.", "Two!", '"Three?"', "Four."]
    assert sentences("One. Instead of two The third. Four.") == ["One.", "Instead of two", "The third.", "Four."]


def test_a_line_without_four_sentences_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("One. Two. Three. Four.\n\nOne. Two.\n")
    with pytest.raises(InputError, match=r"a\.txt:3 has 2 sentences, not 4"):
        ToTText.build(ToTTextOptions(data=str(tmp_path / "a.txt")))


@pytest.mark.skipif(not SHARED.is_dir(), reason="the files are not here")
def test_the_published_files_load() -> None:
    task = ToTText.build(ToTTextOptions(data=str(SHARED / "tot_100_sentences.txt")))
    items = task.items()
    assert len(items) == 100
    for item in items:
        given = item.data["sentences"]
        assert isinstance(given, list)
        assert task.grade(item, passage(*given)).correct, item.id
        assert all(sentence in item.prompt for sentence in given)
    (cut,) = Continuation.build(ContinuationOptions(data=str(SHARED / "time_machine.txt"))).items()
    words = (SHARED / "time_machine.txt").read_text().split()
    assert cut.prompt.split() == words[len(words) // 2 - 32 : len(words) // 2]
    prompts = NoveltyBench.build(SourceOptions(data=str(SHARED / "novelty_bench_curated.jsonl"))).items()
    assert len({item.id for item in prompts}) == 100


def test_noveltybench_loads_prompts_and_refuses_repeated_ids(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"id": "q", "prompt": "Name a tree."}\n' * 2)
    with pytest.raises(InputError, match="prompt 2: its id occurs twice"):
        NoveltyBench.build(SourceOptions(data=str(tmp_path / "a.jsonl")))
    (tmp_path / "a.jsonl").write_text('{"id": "q", "prompt": "Name a tree."}\n')
    task = NoveltyBench.build(SourceOptions(data=str(tmp_path / "a.jsonl")))
    assert task.items() == [Item("noveltybench/q", "Name a tree.")]
    assert task.grade(task.items()[0], "Oak.") == UNGRADED


def study(data: str, task: str = "continuation") -> config.Study:
    return config.parse(
        {
            "name": "writing",
            "models": [{"model": "countdown", "chat": True}],
            "tasks": [{"task": task, "options": {"data": data}}],
            "methods": [{"method": "vanilla"}],
        }
    )


def test_continuation_prompts_bypass_the_chat_template() -> None:
    item = Item("a", "Once upon")
    (cell, *_) = cells(study("book.txt"))
    assert cell.request(item).prompt == "Once upon"
    (cell, *_) = cells(study("a.jsonl", "noveltybench"))
    assert cell.request(item).prompt == ({"role": "user", "content": "Once upon"},)


@pytest.mark.timeout(300)
def test_reports_of_ungraded_tasks_omit_measures_of_right_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, store, out = tmp_path / "study.toml", str(tmp_path / "store"), tmp_path / "report"
    file.write_text(f"""
        name = "writing"
        sampling = {{ max_tokens = 8 }}
        groups = [4]
        [[models]]
        model = "countdown"
        [[tasks]]
        task = "continuation"
        options = {{ data = "{book(tmp_path, 80)}", places = 3, words = 4 }}
        [[methods]]
        method = "vanilla"
        [[methods]]
        method = "esamp"
    """)
    assert main(["study", "run", str(file), "--store", store]) == 0
    assert main(["study", "report", str(file), "--store", store, "--out", str(out)]) == 0
    capsys.readouterr()
    text = (out / "report.md").read_text()
    assert "| method | Vendi | Vendi30 | cosine |" in text
    assert "| method | perplexity | entropy |" in text
    assert "| method | tokens | empty % | cut % | spent | seconds |" in text
    counted = {measure.name for measure in MEASURES if measure.graded}
    assert counted == {"pass@1", "solved", "majority", "distinct", "parsed"}
    for name in ("estimates.csv", "differences.csv"):
        shown = {row["measure"] for row in csv.DictReader((out / name).read_text().splitlines())}
        assert "Vendi" in shown
        assert not shown & counted
        assert not any("pass@" in measure for measure in shown)
    assert not any(f"* **{name}**" in text for name in counted)


def test_tasks_are_listed_with_their_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "tasks", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == set(registry.names())
    assert found["gpqa"]["private"] is True
    assert found["continuation"]["graded"] is False
    assert found["continuation"]["options"]["places"] == {
        "description": "cut points, evenly spaced; one is in the middle of the book",
        "allowed": "a whole number from 1 to 100000",
        "default": 1,
    }
    assert main(["study", "tasks"]) == 0
    listed = capsys.readouterr().out
    assert "continuation  (not graded)" in listed
    assert "gpqa  (private)" in listed
    assert "arXiv 2311.12022" in listed
