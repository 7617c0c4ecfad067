"""`Claim`: the primary comparison of a study, declared in its file before the study is run.

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

LevelMeasure: TypeAlias = Literal["entropy", "perplexity", "non-words", "on topic"]
LEVEL_MEASURES: tuple[LevelMeasure, ...] = get_args(LevelMeasure)
"""Measures whose level can be held equal when a method is compared with plain sampling."""
TESTED_MEASURES = ("pass@1", "solved", "majority", "distinct", "Vendi", "Vendi30", "n-gram Vendi")
"""Measures that methods are compared on. Each is one family of tests, corrected over the methods."""
COST_MEASURES = ("loops", "non-words", "empty", "cut", "self-BLEU", "cosine", "perplexity", "second perplexity")
"""Measures of which less is better."""
EMBEDDING_MEASURES = frozenset({"Vendi", "Vendi30", "cosine", "on topic"})
"""Measures that need sentence embeddings."""


class Claim(Options):
    """One arm against the best of plain sampling, on one measure, at equal quality. Samples do not depend on it."""

    question: str = Field(min_length=1, max_length=1000)
    """the question that the study answers, in one sentence"""
    arm: str
    """label of the arm that the claim is about"""
    measure: str = "Vendi"
    """the measure of which the arm should have more"""
    at_equal: tuple[str, ...] = Field(default=("perplexity", "non-words", "on topic"), min_length=1, strict=False)
    """measures whose level is held equal, one test each; all tests together are one family"""
    not_above: tuple[str, ...] = Field(default=("loops",), strict=False)
    """measures of which the arm must not have more than plain sampling at that level, beyond noise"""

    def check(self, methods: Mapping[str, bool], unavailable: Mapping[str, str]) -> None:
        """Refuse a claim that the study cannot test.

        Args:
            methods: labels of the study's arms, and whether each is plain sampling.
            unavailable: measures that the study leaves out, with the setting that adds them.

        Raises:
            OptionError: a label or a measure does not exist or does not fit; the message lists those that do.
        """
        explored = [label for label, plain in methods.items() if not plain]
        _check_names("arm", [self.arm], explored)
        _check_names("measure", [self.measure], TESTED_MEASURES)
        _check_names("at_equal", self.at_equal, LEVEL_MEASURES)
        _check_names("not_above", self.not_above, COST_MEASURES)
        for name in (self.measure, *self.at_equal, *self.not_above):
            if name in unavailable:
                raise OptionError(f"{name!r} is not measured in this study: {unavailable[name]}")
        if self.measure in self.at_equal or set(self.at_equal) & set(self.not_above):
            raise OptionError("a measure can be held equal, compared or bounded, not two of these at once")
        if sum(methods.values()) < 2:
            raise OptionError("there is no curve of plain sampling: add vanilla or min_p at two settings or more")


def unavailable_measures(
    *, embedder: bool, likelihood: bool, entropy: bool, second: bool, words: bool
) -> dict[str, str]:
    """The measures that a study with these settings leaves out, with the setting that adds them."""
    unavailable: dict[str, str] = {}
    for enabled, names, setting in (
        (embedder, EMBEDDING_MEASURES, "name an embedder"),
        (likelihood, {"perplexity"}, "set likelihood = true"),
        (entropy, {"entropy"}, "set likelihood = true and entropy = true"),
        (second, {"second perplexity"}, "name a second_model"),
        (words, {"non-words"}, "set words = true"),
    ):
        if not enabled:
            unavailable |= dict.fromkeys(names, setting)
    return unavailable


def _check_names(option: str, names: Sequence[str], allowed: Sequence[str]) -> None:
    """Refuse unknown and repeated names.

    Raises:
        OptionError: the message names the option and the allowed names.
    """
    for name in names:
        if name not in allowed:
            raise OptionError(f"{option} = {name!r}: choose from {', '.join(allowed) or 'methods that explore'}")
        if names.count(name) > 1:
            raise OptionError(f"{option} has {name!r} twice")
