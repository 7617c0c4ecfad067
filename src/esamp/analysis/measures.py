"""The measures of a report: numbers computed from the record of a group, and tables of them over problems and seeds."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from esamp.metrics.lexical import distinct_n, ngram_embedding, self_bleu
from esamp.metrics.pass_at_k import pass_at_k
from esamp.metrics.quality import empty_share, loop_rate
from esamp.metrics.vendi import mean_cosine, ngram_vendi, vendi_score
from esamp.study.group_measurements import GroupLikelihoods, GroupMeasurements
from esamp.study.records import Record

Values = NDArray[np.float64]
"""Mostly `[problems, seeds]`."""


class Graded(Protocol):
    """A graded sample, such as a `Grade` or a `SampleRecord`."""

    @property
    def correct(self) -> bool:
        """Whether the sample is right."""

    @property
    def canonical(self) -> str | None:
        """The answer in a form that equal answers share; None without an answer."""


@dataclass(frozen=True)
class Measure:
    """A function from the record of a group to one number, and how reports show it."""

    name: str
    """heading of its column in tables"""
    of: Callable[[Record], float]
    percent: bool = False
    decimals: int = 0
    """decimals of a percentage; other numbers have two"""
    summary: str = ""
    """definition for readers of the report"""
    graded: bool = False
    """whether it applies only to tasks with right answers"""


def share_correct(samples: Sequence[Graded]) -> float:
    """The share of right samples; NaN without samples."""
    return sum(sample.correct for sample in samples) / len(samples) if samples else float("nan")


def distinct_correct(samples: Sequence[Graded]) -> int:
    """The number of different right answers, by their canonical form."""
    return len({sample.canonical for sample in samples if sample.correct})


def majority(record: Record) -> float:
    """1 if the most frequent answer is right. Samples without an answer have no vote; ties go to the first drawn."""
    votes = Counter(sample.canonical for sample in record.samples if sample.canonical is not None)
    if not votes:
        return 0.0
    winner = max(votes, key=votes.__getitem__)  # the first of the largest, in the order drawn
    return float(any(sample.correct for sample in record.samples if sample.canonical == winner))


def _tokens(record: Record) -> list[tuple[int, ...]]:
    return [sample.token_ids for sample in record.samples if sample.token_ids]


def _lexical(of: Callable[[Sequence[tuple[int, ...]]], float]) -> Callable[[Record], float]:
    """A measure of the samples' tokens; NaN for fewer than two samples with tokens."""

    def measure(record: Record) -> float:
        tokens = _tokens(record)
        return of(tokens) if len(tokens) > 1 else float("nan")

    return measure


def _vectors(of: Callable[[NDArray[np.float32]], float]) -> Callable[[Record], float]:
    """A measure of the samples' embeddings; NaN for fewer than two samples, or without embeddings."""

    def measure(record: Record) -> float:
        vectors = record.measured.vectors
        return of(vectors) if vectors is not None and len(vectors) > 1 else float("nan")

    return measure


def _texts(of: Callable[[Sequence[str]], float]) -> Callable[[Record], float]:
    """A measure of the samples' texts; NaN if they are not kept."""

    def measure(record: Record) -> float:
        texts = [sample.text for sample in record.samples if sample.text is not None]
        return of(texts) if len(texts) == len(record.samples) else float("nan")

    return measure


def _measured(read: Callable[[GroupMeasurements], float | None]) -> Callable[[Record], float]:
    """A stored measurement of the group; NaN where there is none."""

    def measure(record: Record) -> float:
        value = read(record.measured)
        return float("nan") if value is None else value

    return measure


def _per_token(read: Callable[[GroupLikelihoods], Sequence[float]], role: str) -> Callable[[Record], float]:
    """Mean over all tokens of a group; NaN without likelihoods."""

    def measure(record: Record) -> float:
        likelihoods = record.measured.own if role == "own" else record.measured.second
        if likelihoods is None:
            return float("nan")
        values, tokens = np.array(read(likelihoods)), np.array(likelihoods.tokens)
        measured = tokens > 0
        return float(np.average(values[measured], weights=tokens[measured])) if measured.any() else float("nan")

    return measure


def _perplexity(role: str) -> Callable[[Record], float]:
    mean = _per_token(lambda likelihoods: likelihoods.nll, role)
    return lambda record: float(np.exp(mean(record)))


MEASURES: tuple[Measure, ...] = (
    Measure(
        "pass@1",
        lambda record: share_correct(record.samples),
        percent=True,
        summary="share of right samples",
        graded=True,
    ),
    Measure(
        "solved",
        lambda record: float(any(sample.correct for sample in record.samples)),
        percent=True,
        summary="pass@k of groups of exactly k = n samples: share of problems with a right one",
        graded=True,
    ),
    Measure("majority", majority, percent=True, summary="the most frequent answer of the group is right", graded=True),
    Measure(
        "distinct",
        lambda record: float(distinct_correct(record.samples)),
        summary="different right answers of a group",
        graded=True,
    ),
    Measure(
        "Vendi",
        _vectors(vendi_score),
        summary="Vendi Score, the effective number of different samples, under the cosine of sentence embeddings",
    ),
    Measure(
        "Vendi30",
        _measured(lambda measured: measured.opening_vendi),
        summary="the same of the samples' first 30 words, so that a method's lengths do not matter",
    ),
    Measure("cosine", _vectors(mean_cosine), summary="mean pairwise cosine of the samples' sentence embeddings"),
    Measure(
        "n-gram Vendi",
        _lexical(ngram_vendi),
        summary="Vendi Score under the n-gram kernel of their tokens",
    ),
    Measure(
        "n-gram cosine",
        _lexical(lambda tokens: mean_cosine(ngram_embedding(tokens))),
        summary="mean pairwise cosine of the same kernel",
    ),
    Measure("distinct-2", _lexical(lambda tokens: distinct_n(tokens, 2)), summary="different bigrams of all bigrams"),
    Measure("self-BLEU", _lexical(self_bleu), summary="BLEU of each sample against the others; high is alike"),
    Measure(
        "perplexity",
        _perplexity("own"),
        summary="exp of the tokens' mean negative log-likelihood under the undisturbed model at temperature 1",
    ),
    Measure(
        "entropy",
        _per_token(lambda likelihoods: likelihoods.entropy, "own"),
        summary="mean entropy of that model's next-token distribution along the samples, in nats",
    ),
    Measure("second perplexity", _perplexity("second"), summary="perplexity of the texts under a second model"),
    Measure(
        "non-words",
        _measured(lambda measured: measured.nonwords),
        percent=True,
        decimals=2,
        summary="lower-case words of three letters and more that are no English words (Zipf frequency below 1.5)",
    ),
    Measure(
        "loops",
        _texts(loop_rate),
        percent=True,
        decimals=1,
        summary="samples that repeat themselves: a word four times in a row, or under 70 % distinct word trigrams",
    ),
    Measure(
        "on topic",
        _measured(lambda measured: measured.on_topic),
        percent=True,
        summary="samples that are closer to their own prompt than to all but four other prompts of the task",
    ),
    Measure("empty", _texts(empty_share), percent=True, summary="samples without any text"),
    Measure(
        "tokens",
        lambda record: sum(sample.tokens for sample in record.samples) / len(record.samples),
        summary="length of a sample",
    ),
    Measure(
        "parsed",
        lambda record: sum(sample.canonical is not None for sample in record.samples) / len(record.samples),
        percent=True,
        summary="samples with an answer that can be read",
        graded=True,
    ),
    Measure(
        "cut",
        lambda record: sum(sample.finish_reason == "length" for sample in record.samples) / len(record.samples),
        percent=True,
        summary="samples that ran out of tokens",
    ),
    Measure("spent", lambda record: float(record.cost["tokens"]), summary="tokens generated for a group in all"),
    Measure("seconds", lambda record: float(record.cost["seconds"]), summary="wall time of a group's batch"),
)
"""All measures, in the order of the tables."""


def measures(*, graded: bool) -> tuple[Measure, ...]:
    """The measures that apply to a task."""
    return tuple(measure for measure in MEASURES if graded or not measure.graded)


def table(groups: Mapping[int, Mapping[str, Record]], items: Sequence[str], measure: Measure) -> Values:
    """A measure of one arm, `[problems, seeds]`, from its records by seed and problem id."""
    return np.array([[value(measure, groups[seed][item]) for seed in groups] for item in items], dtype=np.float64)


def value(measure: Measure, record: Record) -> float:
    """A measure of one group, computed once and cached in the record."""
    if measure.name not in record.values:
        record.values[measure.name] = measure.of(record)
    return record.values[measure.name]


def subset_pass(groups: Mapping[int, Mapping[str, Record]], items: Sequence[str], k: int) -> Values:
    """`pass@k (subset of n)` `[problems, seeds]`; NaN where a group has fewer than k samples."""
    n = np.array([[len(groups[seed][item].samples) for seed in groups] for item in items])
    c = np.array([[sum(s.correct for s in groups[seed][item].samples) for seed in groups] for item in items])
    return pass_at_k(n, c, k)
