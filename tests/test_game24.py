"""Game of 24: the file, the paper's split, the grader, and both wordings of the prompt."""

from pathlib import Path

import pytest

from esamp.errors import InputError, OptionError
from esamp.tasks.base import Item, Task
from esamp.tasks.countdown import solve
from esamp.tasks.game24 import Game24, read_puzzles

FILE = """Rank,Puzzles,AMT (s),Solved rate,1-sigma Mean (s),1-sigma STD (s)
1,1 2 3 4,4.4,99.20%,4.67,1.48
901,4 5 6 10,4.41,99.60%,4.68,1.45
902,3 3 8 8,9,12.00%,9,1
1000,1 5 5 5,9,12.00%,9,1
1001,2 2 2 9,9,12.00%,9,1
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "24.csv"
    path.write_text(FILE)
    return path


def test_items_are_the_papers_ranks_in_the_order_of_the_file(path: Path) -> None:
    task: Task = Game24(path)
    items = task.items()
    assert [item.id for item in items] == ["game24/901", "game24/902", "game24/1000"]
    assert items[0].prompt == "Numbers 4 5 6 10 target 24"
    assert items[0].data == {"numbers": (4, 5, 6, 10), "target": 24, "rank": 901}
    assert [item.id for item in task.items("all", 2)] == ["game24/1", "game24/901"]
    with pytest.raises(ValueError, match="'test' or 'all'"):
        task.items("train")


def test_a_prompt_in_words_states_all_rules(path: Path) -> None:
    prompt = Game24(path, wording="words").items()[0].prompt
    assert prompt.startswith("Use the numbers 4 5 6 10 and the operations + - * / to make 24.")
    assert 'Answer:"' in prompt
    with pytest.raises(OptionError, match="'trace', 'words'"):
        Game24(path, wording="none")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("numbers", "text", "correct", "reason"),
    [
        ("4 5 6 10", "Answer: (5 * 4) + (10 - 6)", True, "correct"),
        ("4 5 6 10", "try this\nAnswer: 5*4+10-6 = 24", True, "correct"),
        ("3 3 8 8", "Answer: 8 / (3 - 8 / 3)", True, "correct"),
        ("1 5 5 5", "Answer: (5 - 1 / 5) * 5", True, "correct"),
        ("4 5 6 10", "Answer: 4 * 6", False, "does not use each number exactly once"),
        ("4 5 6 10", "Answer: 4 + 5 + 6 + 10", False, "makes 25, not 24"),
        ("4 5 6 10", "(5 * 4) + (10 - 6)", False, "no answer"),
        ("4 5 6 10", "Answer: __import__('os')", False, "not an expression"),
    ],
)
def test_answers_are_graded_exactly(path: Path, numbers: str, text: str, correct: bool, reason: str) -> None:
    item = next(item for item in Game24(path).items() if item.prompt == f"Numbers {numbers} target 24")
    grade = Game24(path).grade(item, text)
    assert grade.correct is correct
    assert grade.reason.startswith(reason)


def test_the_same_solution_has_one_canonical_form(path: Path) -> None:
    task = Game24(path)
    item = task.items()[0]
    forms = {task.grade(item, f"Answer: {text}").canonical for text in ("5*4+(10-6)", "(10 - 6) + 4 * 5", "4*5-6+10")}
    assert len(forms) == 1
    with pytest.raises(TypeError, match="not a Game of 24 item"):
        task.grade(Item("x", "", {"numbers": None}), "")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("2,1 2 3", "expected a Rank and four numbers"),
        ("2,1 2 3 0", "expected a Rank"),
        ("2,1 2 3 100", "expected a Rank"),
        ("two,1 2 3 4", "expected a Rank"),
        ("2,1 2 3 -4", "expected a Rank"),
    ],
)
def test_an_invalid_line_error_names_the_line(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "24.csv"
    path.write_text(f"Rank,Puzzles\n1,1 2 3 4\n{line}\n")
    with pytest.raises(InputError, match=rf"24\.csv:3: {message}"):
        read_puzzles(path)


def test_missing_and_invalid_files_are_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read"):
        Game24(tmp_path / "none.csv")
    bad = tmp_path / "bad.csv"
    bad.write_bytes(b"Rank,Puzzles\n\xff\xfe,1\n")
    with pytest.raises(InputError, match="not a CSV file in UTF-8"):
        Game24(bad)


def test_the_published_list_loads_and_its_solutions_are_right(shared: Path) -> None:
    path = shared / "data" / "puzzles" / "24.csv"
    if not path.is_file():
        pytest.skip(f"no {path}")
    task = Game24(path)
    assert len(task.items("all")) == len(task.puzzles) == 1362
    items = task.items()
    assert [item.data["rank"] for item in items] == list(range(901, 1001))
    assert items[0].data["numbers"] == (4, 5, 6, 10)
    for item in items[:5]:  # the solver allows only positive integers as intermediate results, which suffices here
        numbers = item.data["numbers"]
        assert isinstance(numbers, tuple)
        for answer in solve(numbers, 24):
            assert task.grade(item, f"Answer: {answer}").correct
