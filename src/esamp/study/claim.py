"""`Claim`: the primary comparison of a study, written into its file before it is run.

[primary]
question = "Does exploring write more different texts at equal quality than plain sampling at its best setting?"
arm = "esamp beta=0.5"                             # label of a method, as `esamp study run --dry-run` shows it
measure = "Vendi"
at_equal = ["perplexity", "non-words", "on topic"]
not_above = ["loops"]
"""

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias, get_args

from pydantic import Field

from esamp.errors import OptionError
from esamp.options import Options

Level: TypeAlias = Literal["entropy", "perplexity", "non-words", "on topic"]
LEVELS: tuple[Level, ...] = get_args(Level)
"""Measures that are held equal when a method is compared with plain sampling."""
TESTED = ("pass@1", "solved", "majority", "distinct", "Vendi", "Vendi30", "n-gram Vendi")
"""Measures that methods are compared on; each is one family of tests, corrected over the methods."""
COSTS = ("loops", "non-words", "empty", "cut", "self-BLEU", "cosine", "perplexity", "second perplexity")
"""Measures of which less is better."""
EMBEDDED = frozenset({"Vendi", "Vendi30", "cosine", "on topic"})


class Claim(Options):
    """One arm against the best of plain sampling, on one measure, at equal quality. Cells do not depend on it."""

    question: str = Field(min_length=1, max_length=1000)
    """what the study is to answer, in a sentence"""
    arm: str
    """label of the method that the claim is about"""
    measure: str = "Vendi"
    """what it should have more of"""
    at_equal: tuple[str, ...] = Field(("perplexity", "non-words", "on topic"), min_length=1, strict=False)
    """the level that is held equal in each of the tests; all of them together are one family"""
    not_above: tuple[str, ...] = Field(("loops",), strict=False)
    """measures of which the method must not have more than plain sampling there, beyond noise"""

    def check(self, methods: Mapping[str, bool], missing: Mapping[str, str]) -> None:
        """Refuse what the study cannot answer.

        Args:
            methods: labels of the study's arms, and whether each is plain sampling.
            missing: measures that the study leaves out, with the setting that brings them back.

        Raises:
            OptionError: a label or a measure does not exist or does not fit; names it and what does.
        """
        explored = [label for label, plain in methods.items() if not plain]
        _known("arm", [self.arm], explored)
        _known("measure", [self.measure], TESTED)
        _known("at_equal", self.at_equal, LEVELS)
        _known("not_above", self.not_above, COSTS)
        for name in (self.measure, *self.at_equal, *self.not_above):
            if name in missing:
                raise OptionError(f"{name!r} is not measured in this study: {missing[name]}")
        if self.measure in self.at_equal or set(self.at_equal) & set(self.not_above):
            raise OptionError("a measure can be held equal, compared or bounded, not two of these at once")
        if sum(methods.values()) < 2:
            raise OptionError("there is no curve of plain sampling: add vanilla or min_p at two settings or more")


def missing(*, embedder: bool, likelihood: bool, entropy: bool, second: bool, words: bool) -> dict[str, str]:
    """Measures that a study with these settings leaves out, with the setting that brings them back."""
    found: dict[str, str] = {}
    for there, names, setting in (
        (embedder, EMBEDDED, "name an embedder"),
        (likelihood, {"perplexity"}, "set likelihood = true"),
        (entropy, {"entropy"}, "set likelihood = true and entropy = true"),
        (second, {"second perplexity"}, "name a second_model"),
        (words, {"non-words"}, "set words = true"),
    ):
        found |= {} if there else dict.fromkeys(names, setting)
    return found


def _known(option: str, given: Sequence[str], allowed: Sequence[str]) -> None:
    for name in given:
        if name not in allowed:
            raise OptionError(f"{option} = {name!r}: choose from {', '.join(allowed) or 'methods that explore'}")
        if given.count(name) > 1:
            raise OptionError(f"{option} has {name!r} twice")
