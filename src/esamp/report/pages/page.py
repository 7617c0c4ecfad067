"""What the HTML page shows. Every text may come from a model: nothing in here is trusted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from esamp.errors import InputError


@dataclass(frozen=True)
class SampleView:
    """One sample, token by token.

    A trace (`novelty`, `kl`, `surprisal`) has one number per token, NaN or None where nothing was measured; empty
    means that the sample was not traced.

    Raises:
        InputError: a trace whose length is not that of `tokens`.
    """

    tokens: Sequence[str]
    """decoded pieces that join to the sample's text"""
    novelty: Sequence[float | None] = ()
    """norm of the steering error e"""
    kl: Sequence[float | None] = ()
    """KL(steered || reference) in nats"""
    surprisal: Sequence[float | None] = ()
    """-log p of the token under the reference distribution, in nats"""
    correct: bool | None = None
    """None if nothing graded it"""
    answer: str = ""
    """the parsed answer in the task's canonical form: the page counts the distinct ones among correct samples"""
    reason: str = ""
    """why it is right or wrong, or why no answer could be parsed"""

    def __post_init__(self) -> None:
        for name, values in (("novelty", self.novelty), ("kl", self.kl), ("surprisal", self.surprisal)):
            if len(values) not in (0, len(self.tokens)):
                raise InputError(
                    f"{name} has {len(values)} values for {len(self.tokens)} tokens: give one each, NaN where unknown"
                )


@dataclass(frozen=True)
class ProblemView:
    """One problem and the samples of every arm (a decoding method with its settings) on it."""

    id: str
    prompt: str
    reference: str
    """the expected answer; empty if there is none to show"""
    arms: Mapping[str, Sequence[SampleView]]
    """name of the arm -> its samples; every problem of a page has the same arms"""
    remarks: Mapping[str, str] = field(default_factory=dict)
    """name of the arm -> what its samples amount to; without one the page counts samples and right ones"""


@dataclass(frozen=True)
class Summary:
    """The comparison table: cells are texts, formatted by the caller.

    Raises:
        InputError: a row with another number of cells than there are columns.
    """

    columns: Sequence[str]
    """heads; the first column names the arm"""
    rows: Sequence[Sequence[str]]
    note: str = ""
    """what the numbers and intervals are; shown under the table"""
    marked: str = ""
    """first cell of a row to emphasise, such as that of our default; empty for none"""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise InputError(f"the row {list(row)!r} has {len(row)} cells for {len(self.columns)} columns")


@dataclass(frozen=True)
class Page:
    """Everything on the page.

    The first two arms of the first problem are shown first, left and right: put the baseline first.

    Raises:
        InputError: problems with the same id or with different arms, or no problem to open on.
    """

    title: str
    intro: Sequence[str]
    """sentences; the first is shown large and should be the whole honest result"""
    summary: Summary
    problems: Sequence[ProblemView]
    footer: str = ""
    """how the page was made: version, command, date"""
    trees: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """searches to draw under the samples, by name: `Completion.details` of `tree_of_thoughts`"""
    opens: int = 0
    """the problem that is shown first"""
    noun: str = "Problem"
    """what the problems are called: problems have an answer, prompts have none"""

    def __post_init__(self) -> None:
        if self.problems and not 0 <= self.opens < len(self.problems):
            raise InputError(f"opens = {self.opens}: there are {len(self.problems)} problems")
        seen: set[str] = set()
        for problem in self.problems:
            if problem.id in seen:
                raise InputError(f"two problems have the id '{problem.id}': give each its own")
            seen.add(problem.id)
            if set(problem.arms) != set(self.arms):
                raise InputError(f"problem '{problem.id}' has the arms {list(problem.arms)}, not {list(self.arms)}")

    @property
    def arms(self) -> tuple[str, ...]:
        """Names of the arms, in the order of the first problem."""
        return tuple(self.problems[0].arms) if self.problems else ()
