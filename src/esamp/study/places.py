"""Where in a study's file something is, for errors that name the place."""

from esamp.errors import EsampError


def entry(name: str, number: int) -> str:
    """An entry of one of the file's lists, counted from 1: ``[[tasks]] number 2``."""
    return f"[[{name}]] number {number}"


class at:  # noqa: N801  # reads as a word: with at("[[tasks]] number 2")
    """Puts a place before the message of an error of ours, which keeps its type."""

    def __init__(self, where: str) -> None:
        self.where = where

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, EsampError):
            raise type(error)(f"{self.where}: {error}") from None
