"""Failed requests of a run: their records in the output file, their allowed number, and the summary at the end."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import Field

from esamp.errors import FailedRequestsError, RequestError
from esamp.options import Options

FEWEST = 10
"""A run stops only after at least this many requests have failed."""
SHOWN = 3
"""Reasons that a summary quotes, each up to `LONGEST` characters."""
LONGEST = 400


class FailureOptions(Options):
    """How many requests of a run may fail."""

    max_failed: float = Field(default=0.1, ge=0, le=1)
    """stop once more than this share of the requests, and at least 10, failed; a rerun retries temporary failures"""


@dataclass(frozen=True)
class FailureRecord:
    """The field ``failure`` in the line of a failed request."""

    reason: str
    retry: bool
    """whether a later run tries the request again instead of skipping it"""

    @classmethod
    def of(cls, error: RequestError, *, private: bool = False) -> "FailureRecord":
        """The record of an error. The message is dropped for a `private` task, because it may quote the prompt."""
        return cls(f"{type(error).__name__} (its task is private)" if private else str(error), error.retry)

    @classmethod
    def of_line(cls, line: Mapping[str, Any]) -> "FailureRecord | None":
        """The record in a line; None if its request did not fail."""
        failure = line.get("failure")
        if not isinstance(failure, dict):
            return None
        return cls(str(failure.get("reason", "")), failure.get("retry") is not False)

    def as_json(self) -> dict[str, Any]:
        """The value of the field ``failure``."""
        return {"reason": self.reason, "retry": self.retry}


@dataclass
class Failures:
    """Counts the failed requests of a run, including those of earlier runs that are not tried again."""

    total: int
    """requests of the whole run, including finished ones"""
    max_failed: float
    what: str = "prompts"
    records: list[FailureRecord] = field(default_factory=list)

    def add(self, failure: FailureRecord) -> None:
        """Count a failure.

        Raises:
            FailedRequestsError: there are now more than `max_failed` allows.
        """
        self.records.append(failure)
        self.check()

    def check(self) -> None:
        """Stop the run if there are too many failures.

        Raises:
            FailedRequestsError: there are more than `max_failed` allows.
        """
        count = len(self.records)
        if count >= FEWEST and count > self.max_failed * self.total:
            raise FailedRequestsError(
                f"stopped: {count} of {self.total} {self.what} failed, more than max_failed = {self.max_failed:g} "
                f"allows: {reasons(self.records)}. Remove the cause and run the same command again, or allow more "
                "(--max-failed, or max_failed in the study's file)"
            )

    def finish(self) -> None:
        """Report the failures at the end of a run.

        Raises:
            FailedRequestsError: at least one failed.
        """
        if not self.records:
            return
        again = sum(failure.retry for failure in self.records)
        skipped = len(self.records) - again
        outcome = [f"{again} may pass, and the same command tries them again"] if again else []
        outcome += [f"{skipped} would fail again and will be skipped"] if skipped else []
        raise FailedRequestsError(
            f"{len(self.records)} of {self.total} {self.what} failed ({'; '.join(outcome)}): {reasons(self.records)}"
        )


def reasons(failures: Iterable[FailureRecord]) -> str:
    """The first different reasons, and the number of further ones."""
    distinct = list(dict.fromkeys(failure.reason for failure in failures))
    shown = [reason if len(reason) <= LONGEST else f"{reason[: LONGEST - 3]}..." for reason in distinct[:SHOWN]]
    return "; ".join(shown) + (f"; and {len(distinct) - SHOWN} more" if len(distinct) > SHOWN else "")
