"""The demonstration: the embedded model on held-out Countdown problems, with and without exploration."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from esamp.engines.base import Completion, Engine, Progress, Request, Sample
from esamp.engines.checks import check_active
from esamp.explorer.config import ESampConfig
from esamp.metrics.intervals import Interval, bootstrap_mean, holm, paired_permutation
from esamp.metrics.lexical import ngram_embedding
from esamp.metrics.vendi import vendi_score
from esamp.report.pages import Page, ProblemView, SampleView, Summary
from esamp.sampling import Sampling
from esamp.tasks.base import Grade, Item, Task

BASELINE = "plain sampling, temperature 1"
DEFAULT = "ESamp (default)"


@dataclass(frozen=True)
class DemoArm:
    """One way to decode. Vanilla arms run the observer with beta = 0: same bits as plain sampling, novelty measured."""

    name: str
    temperature: float
    options: ESampConfig


_OTHER: Literal["mean", "rls"] = "mean" if ESampConfig().distiller != "mean" else "rls"
_WORDS = {"mean": "predicted by a running mean", "rls": "predicted by least squares"}
ARMS = (
    DemoArm(BASELINE, 1.0, ESampConfig(beta=0.0)),
    # What beta = .25 amounts to while nothing is predicted, T / 1.25, and beta = .5, T / 1.5
    DemoArm("plain sampling, temperature 0.8", 0.8, ESampConfig(beta=0.0)),
    DemoArm("plain sampling, temperature 0.67", 1 / 1.5, ESampConfig(beta=0.0)),
    DemoArm("ESamp as published", 1.0, ESampConfig(preset="paper")),
    DemoArm(f"ESamp, states {_WORDS[_OTHER]}", 1.0, ESampConfig(distiller=_OTHER)),
    DemoArm(DEFAULT, 1.0, ESampConfig()),
    DemoArm("ESamp by actions instead of states", 1.0, ESampConfig(signal="action")),
)


@dataclass(frozen=True)
class ArmResult:
    """What one arm did, per problem; P problems, n samples each."""

    arm: DemoArm
    completions: tuple[Completion, ...]
    grades: tuple[tuple[Grade, ...], ...]

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Whether each sample is right, `[P, n]`."""
        return np.array([[grade.correct for grade in group] for group in self.grades])

    @property
    def distinct(self) -> NDArray[np.float64]:
        """`[P]`, different correct solutions among the n samples."""
        return np.array([len({g.canonical for g in group if g.correct}) for group in self.grades], dtype=np.float64)

    @property
    def vendi(self) -> NDArray[np.float64]:
        """`[P]`, Vendi Score of the n texts under the n-gram kernel of their tokens."""
        return np.array([vendi_score(ngram_embedding([s.token_ids for s in c.samples])) for c in self.completions])

    @property
    def mean_tokens(self) -> float:
        """Tokens a sample."""
        return float(np.mean([len(sample.token_ids) for c in self.completions for sample in c.samples]))

    @property
    def explained_variance(self) -> float:
        """Mean over problems."""
        return float(np.mean([c.telemetry["explained_variance"] for c in self.completions]))


@dataclass(frozen=True)
class Comparison:
    """An arm against the baseline on the number of distinct correct solutions, paired over problems."""

    arm: str
    difference: Interval
    p: float
    """permutation test, Holm-adjusted over the arms compared"""


def run_demo(
    engine: Engine,
    task: Task,
    items: Sequence[Item],
    *,
    samples: int = 16,
    max_tokens: int = 400,
    seed: int = 0,
    arms: Sequence[DemoArm] = ARMS,
    progress: Progress | None = None,
    on_arm: Callable[[ArmResult], None] | None = None,
) -> list[ArmResult]:
    """Decode `items` with every arm, `samples` each, and grade.

    Raises:
        InactiveMethodError: an arm that should explore never did.
    """
    results = []
    for arm in arms:
        sampling = Sampling(temperature=arm.temperature, max_tokens=max_tokens)
        requests = [
            Request(item.id, item.prompt, n=samples, sampling=sampling, options=arm.options, seed=seed)
            for item in items
        ]
        completions = tuple(engine.generate(requests, progress=progress))
        for completion in completions:
            check_active(completion)
        grades = tuple(
            tuple(task.grade(item, sample.text) for sample in completion.samples)
            for item, completion in zip(items, completions, strict=True)
        )
        results.append(ArmResult(arm, completions, grades))
        if on_arm is not None:
            on_arm(results[-1])
    return results


def compare(results: Sequence[ArmResult]) -> list[Comparison]:
    """Every other arm against the first, on distinct correct solutions."""
    base, others = results[0], results[1:]
    rng = np.random.default_rng(0)
    adjusted = holm([paired_permutation(other.distinct, base.distinct, rng) for other in others])
    return [
        Comparison(other.arm.name, bootstrap_mean(other.distinct - base.distinct, rng), float(p))
        for other, p in zip(others, adjusted, strict=True)
    ]


def table(results: Sequence[ArmResult]) -> Summary:
    """The comparison as formatted cells, 95 % bootstrap intervals over problems in brackets."""
    samples, problems = len(results[0].grades[0]), len(results[0].grades)
    rows = []
    for result in results:
        rng = np.random.default_rng(0)
        rows.append(
            (
                result.arm.name,
                _percent(bootstrap_mean(result.correct.mean(1), rng)),
                _percent(bootstrap_mean(result.correct.any(1), rng)),
                _number(bootstrap_mean(result.distinct, rng)),
                _number(bootstrap_mean(result.vendi, rng)),
                f"{result.mean_tokens:.0f}",
                f"{100 * result.explained_variance:.0f}",
            )
        )
    columns = ("decoding", "pass@1 %", f"pass@{samples} %", "distinct", "Vendi", "tokens", "EV %")
    note = (
        f"{problems} held-out problems, {samples} samples each; 95 % bootstrap intervals over problems. "
        f"pass@{samples}: share of problems solved by a group of exactly {samples}. distinct: different correct "
        "solutions of a problem. Vendi: effective number of different texts, by n-grams of tokens. EV: share of the "
        "variance of the hidden states that the prediction explains."
    )
    return Summary(columns, rows, note, marked=DEFAULT)


def verdict(results: Sequence[ArmResult]) -> list[str]:
    """What the numbers show, in sentences that claim no more than they do."""
    comparisons = compare(results)
    problems, samples = len(results[0].grades), len(results[0].grades[0])
    sure = [c for c in comparisons if c.p < 0.05]
    best = max(comparisons, key=lambda c: c.difference.estimate)
    if sure:
        parts = [f"{c.arm} {_signed(c.difference)} (p = {c.p:.3f})" for c in sure]
        first = f"Distinct correct solutions per problem differ from {BASELINE} beyond chance for: {'; '.join(parts)}."
    else:
        first = (
            f"No arm differs from {BASELINE} beyond chance in distinct correct solutions; the largest difference "
            f"is {best.arm}, {_signed(best.difference)} (p = {best.p:.2f})."
        )
    second = (
        f"With {problems} problems of {samples} samples only large differences can be told from chance: this shows how "
        "the methods behave, it does not rank them. p-values are paired permutation tests over problems, Holm-adjusted."
    )
    published = next((r for r in results if r.arm.options.preset == "paper"), None)
    if published is None:
        return [first, second]
    third = (
        f"As published, the distiller explains {published.explained_variance:.0%} of the variance of the hidden states "
        "here; where that is about zero the method is a lower temperature, which is why vanilla at T / (1 + beta) "
        "stands beside it."
    )
    return [first, second, third]


def page(results: Sequence[ArmResult], items: Sequence[Item], *, shown: int, footer: str) -> Page:
    """The HTML page: the table, and all samples of the first `shown` problems, every token with its measurements.

    It opens on the problem with the most different solutions found by any arm.
    """
    problems = []
    beside = sorted(results, key=lambda result: (result.arm.name != BASELINE, result.arm.name != DEFAULT))
    found = np.max([result.distinct[:shown] for result in results], axis=0)
    for place, item in enumerate(items[:shown]):
        arms = {  # the page opens with the first two: the baseline and our default
            result.arm.name: [
                _view(sample, grade)
                for sample, grade in zip(result.completions[place].samples, result.grades[place], strict=True)
            ]
            for result in beside
        }
        solutions = item.data.get("solutions")
        known = f"different solutions that exist: {solutions}" if solutions else ""
        problems.append(ProblemView(item.id, item.prompt, known, arms))
    opens = int(found.argmax())
    return Page("Exploratory Sampling on Countdown", verdict(results), table(results), problems, footer, opens=opens)


def as_json(results: Sequence[ArmResult]) -> dict[str, object]:
    """All numbers of the table and the comparisons, unformatted."""
    comparisons = [
        {"arm": c.arm, "difference": asdict(c.difference), "p": c.p, "against": BASELINE} for c in compare(results)
    ]
    return {"arms": [_numbers(result) for result in results], "comparisons": comparisons, "verdict": verdict(results)}


def _numbers(result: ArmResult) -> dict[str, object]:
    return {
        "arm": result.arm.name,
        "temperature": result.arm.temperature,
        "options": result.arm.options.model_dump(exclude_unset=True),
        "pass@1": result.correct.mean(1).tolist(),
        "solved": result.correct.any(1).tolist(),
        "distinct_correct": result.distinct.tolist(),
        "vendi": result.vendi.tolist(),
        "mean_tokens": result.mean_tokens,
        "explained_variance": result.explained_variance,
        "seconds": sum({completion.seconds for completion in result.completions}),
    }


def _view(sample: Sample, grade: Grade) -> SampleView:
    trace = sample.trace
    if trace is None:
        return SampleView([sample.text], correct=grade.correct, answer=grade.canonical or "", reason=grade.reason)
    return SampleView(
        tokens=trace.pieces,
        novelty=trace.novelty.tolist(),
        kl=trace.kl.tolist(),
        surprisal=trace.surprisal.tolist(),
        correct=grade.correct,
        answer=grade.canonical or "",
        reason=grade.reason,
    )


def _percent(interval: Interval) -> str:
    return f"{100 * interval.estimate:.0f} [{100 * interval.low:.0f},{100 * interval.high:.0f}]"


def _number(interval: Interval) -> str:
    return f"{interval.estimate:.1f} [{interval.low:.1f},{interval.high:.1f}]"


def _signed(interval: Interval) -> str:
    return f"{interval.estimate:+.2f} [{interval.low:+.2f}, {interval.high:+.2f}]"
