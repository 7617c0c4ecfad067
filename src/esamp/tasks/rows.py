"""`RowsTask`: base of the tasks that have one item for each row of a data set."""

from abc import abstractmethod
from typing import ClassVar, Self

from typing_extensions import override

from esamp.errors import InputError
from esamp.options import Options, narrowed
from esamp.tasks import sources
from esamp.tasks.base import Item, ItemsTask
from esamp.tasks.sources import DataSet, Row, SourceOptions


class RowsTask(ItemsTask):
    """A task whose items are the rows of a data set, loaded from the Hugging Face hub or from a local file."""

    options = SourceOptions
    data_set: ClassVar[DataSet]
    row_noun: ClassVar[str] = "problem"
    """what error messages call a row"""

    @classmethod
    @override
    def build(cls, options: Options) -> Self:
        return cls(cls.load_items(options, cls.data_set, cls.name))

    @classmethod
    def load_items(cls, options: Options, data_set: DataSet, label: str) -> list[Item]:
        """The items of a data set in the order of its rows.

        Args:
            options: say whether to read a local file instead of the hub.
            data_set: where the rows are on the hub.
            label: the data set's name in error messages and item ids.

        Raises:
            InputError: the rows cannot be loaded, one lacks a field, or two have the same id. The message names the
                row by its position alone.
        """
        items: dict[str, Item] = {}
        for place, values in enumerate(sources.load(narrowed(options, SourceOptions), data_set)):
            row = Row(values, place, label, cls.row_noun)
            item = cls.item(row)
            if item.id in items:
                raise InputError(f"{row.where}: its id occurs twice")
            items[item.id] = item
        return list(items.values())

    @classmethod
    @abstractmethod
    def item(cls, row: Row) -> Item:
        """The item of a row.

        Raises:
            InputError: the row lacks a field or has an invalid value.
        """
