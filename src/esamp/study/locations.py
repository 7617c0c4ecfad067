"""Locations in a study's file, for error messages."""

from esamp.errors import EsampError


def table_location(name: str, number: int) -> str:
    """One of the tables of a list, counted from 1: ``[[tasks]] number 2``."""
    return f"[[{name}]] number {number}"


class ErrorLocation:
    """A context that puts a location before the message of an `EsampError`, whose type stays the same.

    It is a class because type checkers assume that a generator-based context manager may swallow exceptions.
    """

    def __init__(self, location: str) -> None:
        self.location = location

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, EsampError):
            raise type(error)(f"{self.location}: {error}") from None
