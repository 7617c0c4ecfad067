"""NoveltyBench: prompts with many good answers. Texts are not graded; the task measures diversity."""

from typing_extensions import override

from esamp.tasks.base import UNGRADED, Grade, Item
from esamp.tasks.rows import RowsTask
from esamp.tasks.sources import DataSet, Row


class NoveltyBench(RowsTask):
    """The 100 curated prompts, unchanged."""

    name = "noveltybench"
    summary = "NoveltyBench: open prompts with many good answers; not graded, for diversity"
    source = "Zhang et al. 2025, arXiv 2504.05228: data/curated.jsonl of its repository"
    data_set = DataSet("yimingzhang/novelty-bench", split="curated")
    row_noun = "prompt"
    graded = False

    @classmethod
    @override
    def item(cls, row: Row) -> Item:
        return Item(f"{cls.name}/{row.field('id')}", row.text("prompt"))

    @override
    def grade(self, item: Item, text: str) -> Grade:
        return UNGRADED
