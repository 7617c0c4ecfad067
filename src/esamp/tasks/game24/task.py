"""The Game of 24 task: puzzles from a file, graded exactly.

The file is the list of Yao et al. 2023 (arXiv 2305.10601): 1,362 puzzles from 4nums.com in a CSV file with the columns
``Rank`` and ``Puzzles`` (others are ignored), sorted by their difficulty for people. The paper uses the ranks 901 to
1,000.
"""

import csv
from pathlib import Path
from typing import Literal, Self

from typing_extensions import override

from esamp.errors import InputError, OptionError
from esamp.files import check_regular
from esamp.options import Options, narrowed
from esamp.tasks.base import Grade, Item, Task
from esamp.tasks.countdown import Problem, grade_answer
from esamp.tasks.sources import local_path

TARGET = 24
PAPER_RANKS = (901, 1000)
PROMPT = (
    "Use the numbers {numbers} and the operations + - * / to make 24. Each number is used exactly once, and brackets "
    'are allowed. End with a line that begins with "Answer:" and holds the whole expression.'
)


def read_puzzles(path: Path) -> dict[int, Problem]:
    """The puzzles of a CSV file by rank, in the order of the file.

    Raises:
        InputError: the file cannot be read, or a line is not a puzzle; the message names the line.
    """
    try:
        check_regular(path)
        with path.open(newline="", encoding="utf-8-sig") as file:
            return dict(_puzzle(f"{path}:{number}", row) for number, row in enumerate(csv.DictReader(file), 2))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is not a CSV file in UTF-8: {error}") from None


def _puzzle(where: str, row: dict[str | None, str | None]) -> tuple[int, Problem]:
    rank, numbers = row.get("Rank") or "", (row.get("Puzzles") or "").split()
    good = all(number.isascii() and number.isdigit() and 1 <= len(number) <= 2 for number in numbers)
    if not (rank.isascii() and rank.isdigit() and good and len(numbers) == 4 and all(map(int, numbers))):
        raise InputError(f"{where}: expected a Rank and four numbers from 1 to 99 under Puzzles, such as '4 5 6 10'")
    return int(rank), Problem(tuple(int(number) for number in numbers), TARGET)


class Game24Options(Options):
    """Options of the Game of 24."""

    data: str | None = None
    """the CSV file with the columns Rank and Puzzles"""
    wording: Literal["trace", "words"] = "words"
    """words: instructions for any model; trace: the prompt of Countdown, for the embedded model"""


class Game24(Task):
    """Make 24 from four numbers, each used once.

    Splits: "test" (the paper's ranks 901 to 1,000) and "all". The data of an item are its numbers, target and rank.
    """

    name = "game24"
    summary = "make 24 from four numbers"
    source = "Yao et al. 2023, Tree of Thoughts, arXiv 2305.10601: 24.csv of its repository, puzzles from 4nums.com"
    options = Game24Options

    @classmethod
    @override
    def build(cls, options: Options) -> Self:
        chosen = narrowed(options, Game24Options)
        return cls(local_path(cls.name, chosen.data, "24.csv"), wording=chosen.wording)

    def __init__(self, path: Path, *, wording: Literal["trace", "words"] = "trace") -> None:
        """Read the puzzles.

        Args:
            path: the CSV file.
            wording: "words" for instructions that any model understands; "trace" for the prompt of Countdown,
                ``Numbers 4 5 6 10 target 24``.

        Raises:
            InputError: the file cannot be read or is not such a list.
            OptionError: there is no such wording.
        """
        if wording not in ("trace", "words"):
            raise OptionError(f"wording = {wording!r}: choose from 'trace', 'words'")
        self.puzzles, self.wording = read_puzzles(path), wording

    @override
    def items(self, split: str | None = None, limit: int | None = None) -> list[Item]:
        split = split or "test"
        if split not in ("test", "all"):
            raise ValueError(f"split must be 'test' or 'all', got {split!r}")
        first, last = PAPER_RANKS
        ranks = [rank for rank in self.puzzles if split == "all" or first <= rank <= last]
        return [self._item(rank) for rank in ranks[:limit]]

    def _item(self, rank: int) -> Item:
        problem = self.puzzles[rank]
        instructions = PROMPT.format(numbers=" ".join(map(str, problem.numbers)))
        prompt = instructions if self.wording == "words" else problem.prompt()
        data = {"numbers": problem.numbers, "target": problem.target, "rank": rank}
        return Item(f"{self.name}/{rank}", prompt, data)

    @override
    def grade(self, item: Item, text: str) -> Grade:
        """Grade the expression after the last ``Answer:`` exactly; intermediate fractions are allowed."""
        numbers = item.data["numbers"]
        if not isinstance(numbers, tuple):
            raise TypeError(f"{item.id} is not a Game of 24 item: its data needs `numbers`")
        return grade_answer(Problem(numbers, TARGET), text)
