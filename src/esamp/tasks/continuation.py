"""Creative writing: the model continues a book from where it is cut off. Texts are not graded."""

import re
from typing import Self

from pydantic import Field
from typing_extensions import override

from esamp.errors import InputError
from esamp.options import Options, narrowed
from esamp.tasks.base import UNGRADED, Grade, Item, ItemsTask
from esamp.tasks.sources import local_path, read_text


class ContinuationOptions(Options):
    """Options of the continuations."""

    data: str | None = Field(default=None, min_length=1)
    """the book, a text file in UTF-8"""
    places: int = Field(default=1, ge=1, le=100_000)
    """cut points, evenly spaced; one is in the middle of the book"""
    words: int = Field(default=32, ge=1, le=100_000)
    """how many words before the cut are the prompt"""


class Continuation(ItemsTask):
    """The last 32 words before the middle of a book, unchanged and without a chat template.

    With more `places`, the book of W words is cut after each ``W i / (places + 1)`` of them, i = 1 .. places. The paper
    draws 16 samples of 512 tokens.
    """

    name = "continuation"
    summary = "creative writing: go on where a book is cut; not graded, for diversity and perplexity"
    source = "the creative writing of the paper on Exploratory Sampling; the book is yours"
    options = ContinuationOptions
    graded = False
    chat = False

    @classmethod
    @override
    def build(cls, options: Options) -> Self:
        chosen = narrowed(options, ContinuationOptions)
        path = local_path(cls.name, chosen.data, "book.txt")
        book = read_text(path)
        words = [word.span() for word in re.finditer(r"\S+", book)]
        cuts = [len(words) * place // (chosen.places + 1) for place in range(1, chosen.places + 1)]
        if cuts[0] < chosen.words:
            raise InputError(
                f"{path} has {len(words)} words: too short for {chosen.places} places with {chosen.words} words before "
                "each"
            )
        prompts = [(cut, book[words[cut - chosen.words][0] : words[cut - 1][1]]) for cut in cuts]
        return cls([Item(f"{cls.name}/{path.stem}/{cut:07d}", prompt) for cut, prompt in prompts])

    @override
    def grade(self, item: Item, text: str) -> Grade:
        return UNGRADED
