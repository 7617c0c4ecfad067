"""`esamp demo --task countdown`: held-out Countdown problems with and without exploration, graded."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from esamp.analysis.measures import distinct_correct, share_correct
from esamp.analysis.statistics import PairedTest, generator, paired_tests
from esamp.compare.arms import decode_prompts, esamp_arm
from esamp.engines.base import Completion, Engine, Progress
from esamp.explorer.config import ESampConfig
from esamp.metrics.vendi import ngram_vendi
from esamp.runs.prompts import Prompt
from esamp.study.arm import Arm
from esamp.tasks.base import Grade, Item, Task

# Plain sampling runs as an observer: ESamp with beta = 0 draws the same tokens and measures novelty.
OBSERVER = ESampConfig(beta=0.0)
BASELINE = esamp_arm("plain sampling, temperature 1", OBSERVER)
PUBLISHED = esamp_arm("ESamp as published", ESampConfig(preset="paper"))
DEFAULT = esamp_arm("ESamp (default)")

_OTHER: Literal["mean", "rls"] = "mean" if ESampConfig().distiller != "mean" else "rls"
_WORDS = {"mean": "predicted by a running mean", "rls": "predicted by least squares"}
ARMS = (
    BASELINE,
    # The temperatures T / (1 + beta) that beta = 0.25 and 0.5 amount to while nothing is predicted:
    esamp_arm("plain sampling, temperature 0.8", OBSERVER, temperature=0.8),
    esamp_arm("plain sampling, temperature 0.67", OBSERVER, temperature=1 / 1.5),
    PUBLISHED,
    esamp_arm(f"ESamp, states {_WORDS[_OTHER]}", ESampConfig(distiller=_OTHER)),
    DEFAULT,
    esamp_arm("ESamp by actions instead of states", ESampConfig(signal="action")),
)


@dataclass(frozen=True)
class CountdownResult:
    """The graded answers of one arm to P problems, n samples each."""

    arm: Arm
    completions: tuple[Completion, ...]
    grades: tuple[tuple[Grade, ...], ...]

    @property
    def correct(self) -> NDArray[np.float64]:
        """`[P]`, share of right samples."""
        return np.array([share_correct(group) for group in self.grades])

    @property
    def solved(self) -> NDArray[np.bool_]:
        """`[P]`, whether any sample is right."""
        return np.array([any(grade.correct for grade in group) for group in self.grades])

    @property
    def distinct(self) -> NDArray[np.float64]:
        """`[P]`, number of different right solutions among the n samples."""
        return np.array([distinct_correct(group) for group in self.grades], dtype=np.float64)

    @property
    def vendi(self) -> NDArray[np.float64]:
        """`[P]`, Vendi Score of the n texts under the n-gram kernel of their tokens."""
        return np.array([ngram_vendi([sample.token_ids for sample in each.samples]) for each in self.completions])

    @property
    def mean_tokens(self) -> float:
        """Mean number of tokens of a sample."""
        lengths = [len(sample.token_ids) for completion in self.completions for sample in completion.samples]
        return float(np.mean(lengths))

    @property
    def explained_variance(self) -> float:
        """Share of the variance of the hidden states that the distiller explains, mean over problems."""
        return float(np.mean([completion.telemetry["explained_variance"] for completion in self.completions]))


def run(
    engine: Engine,
    task: Task,
    items: Sequence[Item],
    *,
    samples: int = 16,
    max_tokens: int = 400,
    seed: int = 0,
    arms: Sequence[Arm] = ARMS,
    progress: Progress | None = None,
) -> list[CountdownResult]:
    """Decode the problems `items` of `task` with every arm, `samples` samples each, and grade them.

    Raises:
        InactiveMethodError: an arm should have explored and did not.
    """
    prompts = [Prompt(item.id, item.prompt) for item in items]
    results = []
    for arm in arms:
        completions = decode_prompts(
            engine, arm, prompts, n=samples, seed=seed, max_tokens=max_tokens, progress=progress
        )
        grades = tuple(
            tuple(task.grade(item, sample.text) for sample in completion.samples)
            for item, completion in zip(items, completions, strict=True)
        )
        results.append(CountdownResult(arm, completions, grades))
    return results


def compare(results: Sequence[CountdownResult]) -> dict[str, PairedTest]:
    """Every arm against the first on different right solutions, paired by problem; one family of tests, by label."""
    base, others = results[0], results[1:]
    rng = generator()
    tests = paired_tests([(other.distinct, base.distinct) for other in others], rng=lambda: rng)
    return {other.arm.label: test for other, test in zip(others, tests, strict=True)}
