"""Options of Tree of Thoughts, with the settings of Yao et al. 2023 as defaults."""

from typing import Literal

from pydantic import Field

from esamp.search.over import OverOptions


class TreeOfThoughtsOptions(OverOptions):
    """How the tree is grown, judged and walked, and what that may cost."""

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
