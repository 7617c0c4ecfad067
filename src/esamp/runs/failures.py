"""Failed requests of a run: what is written of them, how many there may be, and what is said at the end."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import Field

from esamp.errors import FailedRequestsError, RequestError
from esamp.options import Options

FEW = 10
"""A run does not stop before so many requests failed, however small it is."""
SHOWN = 3
"""Reasons that a summary repeats, each up to `LONGEST` characters."""
LONGEST = 400


class FailureOptions(Options):
    """How many requests of a run may fail."""

    max_failed: float = Field(0.1, ge=0, le=1)
    """stop once more than this share of the requests has failed, and no fewer than 10; a rerun retries what may pass"""


@dataclass(frozen=True)
class FailureRecord:
    """What is written of a failed request: in its line, the field ``failure``."""

    reason: str
    retry: bool
    """whether the next start tries it again; otherwise it is skipped"""

    @classmethod
    def of(cls, error: RequestError, *, private: bool = False) -> "FailureRecord":
        """The record of an error. Of a `private` request no words are kept, as they may quote the prompt."""
        return cls(f"{type(error).__name__} (its task is private)" if private else str(error), error.retry)

    @classmethod
    def of_line(cls, line: Mapping[str, Any]) -> "FailureRecord | None":
        """What a line says; None if its request did not fail."""
        told = line.get("failure")
        return cls(str(told.get("reason", "")), told.get("retry") is not False) if isinstance(told, dict) else None

    def as_json(self) -> dict[str, Any]:
        """The field of the line."""
        return {"reason": self.reason, "retry": self.retry}


@dataclass
class Failures:
    """Counts the failed requests of a run, those of earlier starts included that are not tried again."""

    total: int
    """requests of the whole run, finished ones included"""
    max_failed: float
    what: str = "prompts"
    found: list[FailureRecord] = field(default_factory=list)

    def add(self, failure: FailureRecord) -> None:
        """Count one more.

        Raises:
            FailedRequestsError: it is one too many.
        """
        self.found.append(failure)
        self.check()

    def check(self) -> None:
        """Refuse to go on with too many failures.

        Raises:
            FailedRequestsError: there are more than `max_failed` allows.
        """
        count = len(self.found)
        if count >= FEW and count > self.max_failed * self.total:
            raise FailedRequestsError(
                f"stopped: {count} of {self.total} {self.what} failed, more than max_failed = {self.max_failed:g} "
                f"allows: {reasons(self.found)}. Remove the cause and run the same command again, or allow more "
                "(--max-failed, or max_failed in the study's file)"
            )

    def finish(self) -> None:
        """End a run of which requests failed with a summary.

        Raises:
            FailedRequestsError: at least one failed.
        """
        if not self.found:
            return
        again = sum(failure.retry for failure in self.found)
        skipped = len(self.found) - again
        told = [f"{again} may pass, and the same command tries them again"] if again else []
        told += [f"{skipped} would fail again and will be skipped"] if skipped else []
        raise FailedRequestsError(
            f"{len(self.found)} of {self.total} {self.what} failed ({'; '.join(told)}): {reasons(self.found)}"
        )


def reasons(failures: Iterable[FailureRecord]) -> str:
    """The first reasons in words, and how many more there are."""
    distinct = list(dict.fromkeys(failure.reason for failure in failures))
    shown = [reason if len(reason) <= LONGEST else f"{reason[: LONGEST - 3]}..." for reason in distinct[:SHOWN]]
    return "; ".join(shown) + (f"; and {len(distinct) - SHOWN} more" if len(distinct) > SHOWN else "")
