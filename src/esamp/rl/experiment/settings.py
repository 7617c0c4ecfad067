"""`Settings` of the Countdown experiment. Imports no large library."""

from __future__ import annotations

from dataclasses import dataclass, field

from esamp.errors import OptionError

ARMS = ("vanilla", "esamp")
"""The decoding methods of the rollouts, the baseline first."""


@dataclass(frozen=True)
class Settings:
    """What is trained and how much; the same for both arms."""

    seeds: int = field(default=3, metadata={"help": "runs of each arm"})
    tokens: int = field(default=80_000, metadata={"help": "tokens that the rollouts of a run generate"})
    beta: float = field(default=0.25, metadata={"help": "strength of exploring"})
    ratio_cap: float = field(default=3.0, metadata={"help": "largest importance weight of a token"})
    prompts: int = field(default=4, metadata={"help": "problems of an update"})
    samples: int = field(default=8, metadata={"help": "samples of a problem, which form a group"})
    length: int = field(default=128, metadata={"help": "most tokens of a sample, in training and evaluation"})
    rate: float = field(default=2e-5, metadata={"help": "learning rate of AdamW, constant"})
    problems: int = field(default=60, metadata={"help": "held-out problems of an evaluation"})
    draws: int = field(default=8, metadata={"help": "samples of each of these problems"})

    def check(self) -> None:
        """Refuse settings that cannot be run.

        Raises:
            OptionError: naming the setting.
        """
        for name in ("seeds", "tokens", "prompts", "length", "problems"):
            if getattr(self, name) < 1:
                raise OptionError(f"--{name} {getattr(self, name)}: give at least 1")
        for name in ("samples", "draws"):
            if getattr(self, name) < 2:
                raise OptionError(f"--{name} {getattr(self, name)}: give at least 2")
        if not self.rate > 0:
            raise OptionError(f"--rate {self.rate}: give a positive number")
