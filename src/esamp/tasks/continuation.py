"""Creative writing: a model goes on where a book is cut off. There is no right or wrong, only diversity."""

import re
from pathlib import Path
from typing import Self

from pydantic import Field

from esamp.errors import InputError
from esamp.files import check_regular, read_bytes
from esamp.options import Options, narrowed
from esamp.tasks.base import Grade, Item, Task

UNGRADED = Grade(False, None, None, "not graded")


class ContinuationOptions(Options):
    """Options of the continuations."""

    data: str | None = Field(None, min_length=1)
    """the book, a text file in UTF-8"""
    places: int = Field(1, ge=1, le=100_000)
    """cut points, evenly spaced; one is in the middle of the book"""
    words: int = Field(32, ge=1, le=100_000)
    """how many words before the cut are the prompt"""


class Continuation(Task):
    """The last 32 words before the middle of a book, as they stand there, without a chat template.

    With more `places`, the book of W words is cut after each ``W i / (places + 1)`` of them, i = 1 .. places. The paper
    draws 16 samples of 512 tokens.
    """

    name = "continuation"
    summary = "creative writing: go on where a book is cut; not graded, for diversity and perplexity"
    source = "the creative writing of the paper on Exploratory Sampling; the book is yours"
    options = ContinuationOptions
    graded = False
    chat = False

    def __init__(self, items: list[Item]) -> None:
        """Use `build`."""
        self._items = items

    @classmethod
    def build(cls, options: Options) -> Self:
        """Read the book.

        Raises:
            InputError: there is none, or it is too short.
        """
        wanted = narrowed(options, ContinuationOptions)
        path, text = read_text(cls.name, wanted.data, "book.txt")
        found = [word.span() for word in re.finditer(r"\S+", text)]
        cuts = [len(found) * place // (wanted.places + 1) for place in range(1, wanted.places + 1)]
        if cuts[0] < wanted.words:
            raise InputError(
                f"{path} has {len(found)} words: too short for {wanted.places} places with {wanted.words} words before "
                "each"
            )
        prompts = [(cut, text[found[cut - wanted.words][0] : found[cut - 1][1]]) for cut in cuts]
        return cls([Item(f"{cls.name}/{path.stem}/{cut:07d}", prompt) for cut, prompt in prompts])

    def items(self, split: str | None = None, limit: int | None = None) -> list[Item]:
        """The cut points in the order of the book."""
        return self._items[:limit]

    def grade(self, item: Item, text: str) -> Grade:
        """None: every text gets the same."""
        return UNGRADED


def read_text(task: str, data: str | None, example: str) -> tuple[Path, str]:
    """A task's text file.

    Raises:
        InputError: no file is given, or it is not UTF-8 or cannot be read.
    """
    if data is None:
        options = f"options = {{ data = '{example}' }}"
        raise InputError(f"{task} reads a text file: give --data {example}, or write {options} into the study")
    path = Path(data)
    try:
        check_regular(path)
        return path, read_bytes(path).decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8") from None
