"""Options of all searches and selections: declared apart from their code, which takes longer to import."""

from typing import ClassVar, Literal, TypeAlias

from pydantic import Field, field_validator

from esamp.search.over import OverOptions
from esamp.search.scorers import find

Reading: TypeAlias = Literal["auto", "answer", "boxed", "number", "line", "text"]
"""auto: boxed, else behind "Answer:", else all of a text of one line; answer: behind the last "Answer:" or "answer is";
boxed: the last \\boxed{...}; number: the last number; line: the last line; text: everything"""


class SelectionOptions(OverOptions):
    """The method underneath may itself be a search, but no selection."""

    refused: ClassVar[frozenset[str]] = frozenset({"selection"})

    scorer_device: str = "auto"
    """where a reward model is put: auto, cpu, cuda, cuda:1"""

    @property
    def scored_by(self) -> str | None:
        """The scorer's name, if anything is scored."""
        return None


class ScoredOptions(SelectionOptions):
    """Options of a selection that cannot do without a scorer."""

    scorer: str = "logprob"
    """what scores samples: logprob, logprob_sum, self_certainty, length, brevity, reward:NAME, function:MODULE:NAME"""

    @field_validator("scorer")
    @classmethod
    def _check_scorer(cls, name: str) -> str:
        find(name)
        return name

    @property
    def scored_by(self) -> str:
        """The scorer's name."""
        return self.scorer


class BestOfNOptions(ScoredOptions):
    """What scores the samples."""


class MajorityVoteOptions(SelectionOptions):
    """What is a vote, and what decides between equals."""

    answer: Reading = "auto"
    """how the answer is read from a text: auto (boxed, "Answer:", or one line), answer, boxed, number, line, text"""
    tie_scorer: str | None = None
    """what decides between equally frequent answers: a scorer as of best_of_n; by default the first drawn wins"""

    @field_validator("tie_scorer")
    @classmethod
    def _check_scorer(cls, name: str | None) -> str | None:
        if name is not None:
            find(name)
        return name

    @property
    def scored_by(self) -> str | None:
        """The scorer's name, if there is one."""
        return self.tie_scorer


class WeightedVoteOptions(ScoredOptions):
    """What is a vote and what it weighs."""

    answer: Reading = "auto"
    """how the answer is read from a text: auto (boxed, "Answer:", or one line), answer, boxed, number, line, text"""
    weighting: Literal["exp", "score", "rank"] = "exp"
    """a vote's weight: exp of the score, the score itself (0 if negative), or by rank (Borda)"""
    rank_power: float = Field(1.0, ge=0, le=100)
    """power of the rank's weight; 0 counts all votes alike"""


class GuidedOptions(OverOptions):
    """How many concepts, and how long they may be."""

    concepts: int = Field(4, ge=1, le=100)
    """K, the concepts that are proposed one after the other; the n samples are shared out evenly among them"""
    concept_tokens: int = Field(64, ge=1, lt=2**63)
    """most tokens of a concept"""


class VerbalizedOptions(OverOptions):
    """How many answers a call is asked for, and what becomes of them."""

    answers_per_call: int = Field(5, ge=1, le=100)
    """k, the answers that one call is asked for"""
    probability_below: float | None = Field(None, gt=0, le=1)
    """ask for answers from the tails, each less likely than this; by default from the full distribution"""
    stated_in: Literal["tags", "json"] = "tags"
    """the form that is asked for; both are understood"""
    pick: Literal["all", "drawn"] = "all"
    """take all answers as they come, or draw n from the stated distribution"""
    distinct: bool = False
    """give no text twice"""


class TreeOfThoughtsOptions(OverOptions):
    """How the tree is grown, judged and walked, and what that may cost. The defaults are those of Yao et al. 2023."""

    algorithm: Literal["bfs", "dfs"] = "bfs"
    """bfs keeps the best thoughts of each level; dfs follows the best thought first and backtracks"""
    generate: Literal["propose", "sample"] = "propose"
    """propose asks for several next thoughts in one call; sample draws single thoughts independently"""
    evaluate: Literal["value", "vote"] = "value"
    """value judges each state by itself (sure 20, likely 1, impossible .001); vote lets the model choose among them"""
    select: Literal["greedy", "sampled"] = "greedy"
    """greedy takes the best; sampled draws without replacement, with probabilities proportional to the values"""
    breadth: int = Field(5, ge=1, le=1000)
    """bfs: states kept a level, b; dfs: most children of a state that are gone into"""
    n_generate: int | None = Field(None, ge=1, le=1000)
    """generation calls for each state; by default 1 that proposes, or 5 samples"""
    n_evaluate: int = Field(3, ge=1, le=1000)
    """values drawn for each state, or votes for each ballot"""
    thought_steps: int | None = Field(None, ge=1, le=100)
    """levels of the tree, the answer's included; by default what the problem needs: one a number, else 2"""
    value_threshold: float = Field(0.1, ge=0, le=20)
    """dfs: leave out states whose value (or votes) an evaluation is not above this"""
    call_budget: int | None = Field(1000, ge=1, lt=2**63)
    """draw at most this many samples from the model in all; None for no limit"""
    token_budget: int | None = Field(None, ge=1, lt=2**63)
    """generate at most this many tokens in all: no call is made that could exceed it"""
    thought_prompts: Literal["auto", "trace", "numbers", "general"] = "auto"
    """trace: the embedded model's own lines; numbers: examples of number games, for any model; general: any problem"""
    answer_by: Literal["model", "steps"] = "model"
    """who writes a number game's answer: the model, or it is put together from the checked steps without a call"""

    @property
    def draws(self) -> int:
        """Generation calls for each state."""
        return self.n_generate or (1 if self.generate == "propose" else 5)
