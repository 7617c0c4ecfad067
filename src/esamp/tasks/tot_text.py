"""The creative writing task of Tree of Thoughts: four paragraphs, each of which ends with a given sentence."""

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
"""The beginning of a sentence after one without punctuation, as in five lines of the published file."""
_QUOTES = str.maketrans("“”„«»‘’‚`", '"""""\'\'\'\'')
_HEADING = re.compile(r"^[ \t#*_]{0,8}passage[ \t*_]{0,4}:[ \t*_]{0,4}", re.IGNORECASE | re.MULTILINE)


class ToTTextOptions(Options):
    """Options of the creative writing task."""

    data: str | None = Field(default=None, min_length=1)
    """a text file in UTF-8 with four sentences per line"""


class ToTText(ItemsTask):
    """Four unrelated sentences, each of which must end a paragraph of one passage.

    Only the constraint is graded: exactly four paragraphs, of which the i-th ends with the i-th sentence, apart from
    white space and the style of quotes. The passage begins after the last line ``Passage:``, or with the text if there
    is no such line. Whether the passage makes sense is left to a judge.
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
                parts = sentences(line)
                if len(parts) != PARAGRAPHS:
                    raise InputError(f"{path}:{number} has {len(parts)} sentences, not {PARAGRAPHS}")
                listed = "\n".join(f"{place}. {sentence}" for place, sentence in enumerate(parts, 1))
                prompt = PROMPT.format(sentences=listed)
                items.append(Item(f"{cls.name}/{len(items):03d}", prompt, {"sentences": parts}))
        return cls(items)

    @override
    def grade(self, item: Item, text: str) -> Grade:
        given = item.data["sentences"]
        assert isinstance(given, list)
        text = without_thought(text)
        headings = list(_HEADING.finditer(text))
        body = text[headings[-1].end() :] if headings else text
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
    """The sentences of a line. Each ends with punctuation, which closing quotes may follow; one may lack it."""
    ends = [match.end() for match in _END.finditer(line.strip() + " ")]
    parts = [line.strip()[start:end].strip() for start, end in zip([0, *ends], ends, strict=False)]
    if len(parts) >= PARAGRAPHS:
        return parts
    return [part for sentence in parts for part in _UNMARKED.split(sentence)]


def plain(text: str) -> str:
    """The text on one line, with plain quotes, single spaces and no emphasis around it."""
    return " ".join(text.translate(_QUOTES).split()).strip("*_ ")


def _ends(paragraph: str, sentence: str) -> bool:
    """Whether a paragraph ends with the whole sentence, possibly in quotes, and not only with the same letters."""
    for end in (paragraph, paragraph.rstrip("\"'*_ ")):
        if end.endswith(sentence) and not end.removesuffix(sentence)[-1:].isalnum():
            return True
    return False
