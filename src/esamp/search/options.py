"""Options of all searches and selections, apart from their code, which takes longer to import."""

from typing import ClassVar, Literal, TypeAlias

from pydantic import Field, field_validator
from typing_extensions import override

from esamp.search.over import OverOptions
from esamp.search.scorers import find

Reading: TypeAlias = Literal["auto", "answer", "boxed", "number", "line", "text"]
"""Where the answer of a text is. auto: boxed, else after "Answer:", else all of a text of one line; answer: after the
last "Answer:" or "answer is"; boxed: the last \\boxed{...}; number: the last number; line: the last line; text: all."""


class SelectionOptions(OverOptions):
    """The inner method may be a search, but not a selection."""

    refused: ClassVar[frozenset[str]] = frozenset({"selection"})

    scorer_device: str = "auto"
    """device of a reward model: auto, cpu, cuda, cuda:1"""

    @property
    def scored_by(self) -> str | None:
        """The name of the scorer; None if samples are not scored."""
        return None


class ScoredOptions(SelectionOptions):
    """Options of a selection that needs a scorer."""

    scorer: str = "logprob"
    """score of a sample: logprob, logprob_sum, self_certainty, length, brevity, reward:NAME, function:MODULE:NAME"""

    @field_validator("scorer")
    @classmethod
    def _check_scorer(cls, name: str) -> str:
        find(name)
        return name

    @property
    @override
    def scored_by(self) -> str:
        return self.scorer


class BestOfNOptions(ScoredOptions):
    """The scorer of the samples."""


class MajorityVoteOptions(SelectionOptions):
    """How answers are read, and how ties are broken."""

    answer: Reading = "auto"
    """how the answer is read from a text: auto (boxed, "Answer:", or one line), answer, boxed, number, line, text"""
    tie_scorer: str | None = None
    """scorer that decides between equally frequent answers, as for best_of_n; by default the first drawn wins"""

    @field_validator("tie_scorer")
    @classmethod
    def _check_scorer(cls, name: str | None) -> str | None:
        if name is not None:
            find(name)
        return name

    @property
    @override
    def scored_by(self) -> str | None:
        return self.tie_scorer


class WeightedVoteOptions(ScoredOptions):
    """How answers are read, and how votes are weighted."""

    answer: Reading = "auto"
    """how the answer is read from a text: auto (boxed, "Answer:", or one line), answer, boxed, number, line, text"""
    weighting: Literal["exp", "score", "rank"] = "exp"
    """a vote's weight: exp of the score, the score itself (0 if negative), or by rank (Borda)"""
    rank_power: float = Field(default=1.0, ge=0, le=100)
    """power of the rank's weight; with 0 all votes weigh the same"""


class GuidedOptions(OverOptions):
    """How many concepts are proposed, and how long each may be."""

    concepts: int = Field(default=4, ge=1, le=100)
    """K, the number of concepts, proposed one after the other; the n samples are divided evenly among them"""
    concept_tokens: int = Field(default=64, ge=1, lt=2**63)
    """most tokens of a concept"""


class VerbalizedOptions(OverOptions):
    """How many answers one call returns, and which of them become samples."""

    answers_per_call: int = Field(default=5, ge=1, le=100)
    """k, the number of answers requested in one call"""
    probability_below: float | None = Field(default=None, gt=0, le=1)
    """request answers from the tails, each less probable than this; by default from the full distribution"""
    stated_in: Literal["tags", "json"] = "tags"
    """the format that the instructions request; replies are read in either"""
    pick: Literal["all", "drawn"] = "all"
    """all takes the answers in their order; drawn draws n from the stated distribution"""
    distinct: bool = False
    """return each text at most once"""


class TreeOfThoughtsOptions(OverOptions):
    """How the tree is expanded, evaluated and searched, and the budgets. The defaults are those of Yao et al. 2023."""

    algorithm: Literal["bfs", "dfs"] = "bfs"
    """bfs keeps the best states of each level; dfs follows the best state first and backtracks"""
    generate: Literal["propose", "sample"] = "propose"
    """propose requests several next thoughts in one call; sample draws single thoughts independently"""
    evaluate: Literal["value", "vote"] = "value"
    """value rates each state by itself (sure 20, likely 1, impossible .001); vote lets the model choose among them"""
    select: Literal["greedy", "sampled"] = "greedy"
    """greedy takes the best; sampled draws without replacement, with probabilities proportional to the values"""
    breadth: int = Field(default=5, ge=1, le=1000)
    """b, the states kept on each level by bfs, or the most children of a state that dfs enters"""
    n_generate: int | None = Field(default=None, ge=1, le=1000)
    """generation calls for each state; by default 1 for propose, 5 for sample"""
    n_evaluate: int = Field(default=3, ge=1, le=1000)
    """evaluations drawn for each state, or votes for each set of candidates"""
    thought_steps: int | None = Field(default=None, ge=1, le=100)
    """levels of the tree, including that of the answer; by default one per number in a number game, else 2"""
    value_threshold: float = Field(default=0.1, ge=0, le=20)
    """dfs: prune states whose value (or votes) per evaluation is not above this"""
    call_budget: int | None = Field(default=1000, ge=1, lt=2**63)
    """most samples drawn from the model in total; None for no limit"""
    token_budget: int | None = Field(default=None, ge=1, lt=2**63)
    """most tokens generated in total; a call that could exceed it is not made"""
    thought_prompts: Literal["auto", "trace", "numbers", "general"] = "auto"
    """trace: the embedded model's trace format; numbers: worked examples of number games; general: any problem"""
    answer_by: Literal["model", "steps"] = "model"
    """model: the model writes a number game's answer; steps: it is composed of the checked steps, without a call"""

    @property
    def draws(self) -> int:
        """Generation calls for each state."""
        return self.n_generate or (1 if self.generate == "propose" else 5)
