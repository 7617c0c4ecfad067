"""What the Countdown demo shows: the table, sentences about it, the HTML page, JSON."""

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from esamp.analysis.statistics import generator
from esamp.compare.countdown_demo import BASELINE, DEFAULT, PUBLISHED, CountdownResult, compare
from esamp.compare.formatting import sample_view
from esamp.metrics.intervals import Interval, bootstrap_mean
from esamp.report.pages import ComparisonTable, ProblemView, SamplesPage
from esamp.tasks.base import Item

ALPHA = 0.05
"""A difference is called beyond chance if its corrected p-value is below this."""


def table(results: Sequence[CountdownResult]) -> ComparisonTable:
    """The results as formatted cells, with 95 % bootstrap intervals over problems in brackets."""
    samples, problems = len(results[0].grades[0]), len(results[0].grades)
    rows = []
    for result in results:
        rng = generator()
        rows.append(
            (
                result.arm.label,
                _percent(bootstrap_mean(result.correct, rng)),
                _percent(bootstrap_mean(result.solved, rng)),
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
    return ComparisonTable(columns, rows, note, marked=DEFAULT.label)


def verdict(results: Sequence[CountdownResult]) -> list[str]:
    """Sentences about what the numbers show and what they do not."""
    tests = compare(results)
    problems, samples = len(results[0].grades), len(results[0].grades[0])
    significant = {label: test for label, test in tests.items() if test.adjusted < ALPHA}
    best = max(tests, key=lambda label: tests[label].interval.estimate)
    if significant:
        parts = [f"{label} {_signed(test.interval)} (p = {test.adjusted:.3f})" for label, test in significant.items()]
        first = (
            f"Distinct correct solutions per problem differ from {BASELINE.label} beyond chance for: "
            f"{'; '.join(parts)}."
        )
    else:
        first = (
            f"No arm differs from {BASELINE.label} beyond chance in distinct correct solutions; the largest difference "
            f"is {best}, {_signed(tests[best].interval)} (p = {tests[best].adjusted:.2f})."
        )
    second = (
        f"With {problems} problems of {samples} samples only large differences can be told from chance: this shows how "
        "the methods behave, it does not rank them. p-values are paired permutation tests over problems, Holm-adjusted."
    )
    published = next((result for result in results if result.arm == PUBLISHED), None)
    if published is None:
        return [first, second]
    third = (
        f"As published, the distiller explains {published.explained_variance:.0%} of the variance of the hidden states "
        "here; where that is about zero the method is a lower temperature, which is why vanilla at T / (1 + beta) "
        "stands beside it."
    )
    return [first, second, third]


def page(results: Sequence[CountdownResult], items: Sequence[Item], *, shown: int, footer: str) -> SamplesPage:
    """The HTML page: the table, and all samples of the first `shown` problems with measurements of every token.

    It opens on the problem with the largest number of different solutions found by one arm.
    """
    first = (BASELINE, DEFAULT)  # the page opens with the first two arms
    ordered = sorted(results, key=lambda result: first.index(result.arm) if result.arm in first else len(first))
    problems = []
    for index, item in enumerate(items[:shown]):
        arms = {
            result.arm.label: [
                sample_view(sample, grade=grade)
                for sample, grade in zip(result.completions[index].samples, result.grades[index], strict=True)
            ]
            for result in ordered
        }
        solutions = item.data.get("solutions")
        known = f"different solutions that exist: {solutions}" if solutions else ""
        problems.append(ProblemView(item.id, item.prompt, known, arms))
    most_found = np.max([result.distinct[:shown] for result in results], axis=0)
    return SamplesPage(
        "Exploratory Sampling on Countdown",
        verdict(results),
        table(results),
        problems,
        footer,
        opens=int(most_found.argmax()),
    )


def as_json(results: Sequence[CountdownResult]) -> dict[str, object]:
    """All numbers of the table and the comparisons, unformatted."""
    comparisons = [
        {"arm": label, "difference": asdict(test.interval), "p": test.adjusted, "against": BASELINE.label}
        for label, test in compare(results).items()
    ]
    return {"arms": [_numbers(result) for result in results], "comparisons": comparisons, "verdict": verdict(results)}


def _numbers(result: CountdownResult) -> dict[str, object]:
    return {
        "arm": result.arm.label,
        "temperature": result.arm.sampling.temperature,
        "options": result.arm.options.model_dump(exclude_unset=True),
        "pass@1": result.correct.tolist(),
        "solved": result.solved.tolist(),
        "distinct_correct": result.distinct.tolist(),
        "vendi": result.vendi.tolist(),
        "mean_tokens": result.mean_tokens,
        "explained_variance": result.explained_variance,
        "seconds": sum({completion.seconds for completion in result.completions}),
    }


def _percent(interval: Interval) -> str:
    return f"{100 * interval.estimate:.0f} [{100 * interval.low:.0f},{100 * interval.high:.0f}]"


def _number(interval: Interval) -> str:
    return f"{interval.estimate:.1f} [{interval.low:.1f},{interval.high:.1f}]"


def _signed(interval: Interval) -> str:
    return f"{interval.estimate:+.2f} [{interval.low:+.2f}, {interval.high:+.2f}]"
