"""Tree of Thoughts' creative text: four paragraphs, each of which ends with a given sentence."""

import re
from typing import Self

from pydantic import Field
from typing_extensions import override

from esamp.errors import InputError
from esamp.options import Options, narrowed
from esamp.tasks.base import Grade, Item, ItemsTask
from esamp.tasks.sources import local_path, read_text
from esamp.tasks.thought import without_thought

PARAGRAPHS = 4
PROMPT = (
    "Write a short passage that makes sense as a whole. It has exactly four paragraphs with an empty line between "
    "them, and the last sentence of each paragraph is given, word for word:\n\n{sentences}\n\n"
    'You may plan first. Then write a line "Passage:", and behind it the passage alone.'
)
_END = re.compile(r"(?<=[.!?])[\"'”’)]*\s+")
_UNMARKED = re.compile(r"(?<=[a-z])\s+(?=(?:He|She|It|You|They|We|The|There|Just)\b)")
"""Where a sentence begins though none has ended: five lines of the published file have one without a mark."""
_QUOTES = str.maketrans("“”„«»‘’‚`", '"""""\'\'\'\'')
_HEAD = re.compile(r"^[ \t#*_]{0,8}passage[ \t*_]{0,4}:[ \t*_]{0,4}", re.IGNORECASE | re.MULTILINE)


class ToTTextOptions(Options):
    """Options of the creative texts."""

    data: str | None = Field(None, min_length=1)
    """a text file in UTF-8, four sentences a line"""


class ToTText(ItemsTask):
    """Four sentences that have nothing to do with each other, each the end of a paragraph of one passage.

    Graded is the constraint alone: exactly four paragraphs, the i-th ends with the i-th sentence up to white space and
    the kind of quotes. Whether the passage makes sense is for a judge.
    """

    name = "tot_text"
    summary = "creative text under a constraint: four paragraphs that end with given sentences"
    source = "Yao et al. 2023, Tree of Thoughts, arXiv 2305.10601: data_100_random_text.txt of its repository"
    options = ToTTextOptions

    @classmethod
    @override
    def build(cls, options: Options) -> Self:
        path = local_path(cls.name, narrowed(options, ToTTextOptions).data, "data_100_random_text.txt")
        items: list[Item] = []
        for number, line in enumerate(read_text(path).split("\n"), 1):
            if line.strip():
                found = sentences(line)
                if len(found) != PARAGRAPHS:
                    raise InputError(f"{path}:{number} has {len(found)} sentences, not {PARAGRAPHS}")
                listed = "\n".join(f"{place}. {sentence}" for place, sentence in enumerate(found, 1))
                prompt = PROMPT.format(sentences=listed)
                items.append(Item(f"{cls.name}/{len(items):03d}", prompt, {"sentences": found}))
        return cls(items)

    @override
    def grade(self, item: Item, text: str) -> Grade:
        given = item.data["sentences"]
        assert isinstance(given, list)
        text = without_thought(text)
        heads = list(_HEAD.finditer(text))
        body = text[heads[-1].end() :] if heads else text
        paragraphs = [plain(each) for each in re.split(r"\n[ \t\r]*\n", body)]
        paragraphs = [each for each in paragraphs if each]
        if len(paragraphs) != PARAGRAPHS:
            return Grade(False, None, None, f"{len(paragraphs)} paragraphs, not {PARAGRAPHS}")
        answer = "\n\n".join(paragraphs)
        for place, (paragraph, sentence) in enumerate(zip(paragraphs, given, strict=True), 1):
            if not _ends(paragraph, plain(str(sentence))):
                return Grade(False, answer, answer, f"paragraph {place} does not end with its sentence")
        return Grade(True, answer, answer, "correct")


def sentences(line: str) -> list[str]:
    """The sentences of a line: each ends with a mark, closing quotes may follow it. One without a mark is found too."""
    ends = [match.end() for match in _END.finditer(line.strip() + " ")]
    found = [line.strip()[start:end].strip() for start, end in zip([0, *ends], ends, strict=False)]
    if len(found) >= PARAGRAPHS:
        return found
    return [part for sentence in found for part in _UNMARKED.split(sentence)]


def plain(text: str) -> str:
    """One line with plain quotes, single spaces and no emphasis around it."""
    return " ".join(text.translate(_QUOTES).split()).strip("*_ ")


def _ends(paragraph: str, sentence: str) -> bool:
    """Whether it ends with the sentence, alone or in quotes, and not with a word that only ends like it."""
    for end in (paragraph, paragraph.rstrip("\"'*_ ")):
        if end.endswith(sentence) and not end.removesuffix(sentence)[-1:].isalnum():
            return True
    return False
