"""Methods side by side on the same prompts: what each brought, and what it cost."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from esamp.analysis.texts import TextMeter, TextScores
from esamp.engines.base import Completion, Cost, Engine, Progress, Request
from esamp.engines.checks import check_active
from esamp.errors import EsampError, OptionError
from esamp.explorer.config import ESampConfig
from esamp.methods import registry
from esamp.metrics.lexical import ngram_embedding
from esamp.metrics.vendi import vendi_score
from esamp.options import Options
from esamp.runs.prompts import Content, Prompt
from esamp.sampling import Sampling
from esamp.search.base import answer
from esamp.tasks.base import Grade

Grader = Callable[[str], Grade]
BETA = ESampConfig().beta
COOLER = (1 / (1 + BETA), 1 / 1.25)
"""ESamp with a distiller that predicts nothing is T / (1 + beta): for our beta, and for the published one."""


@dataclass(frozen=True)
class Arm:
    """One way to answer the prompt."""

    label: str
    method: str
    options: Options | None = None
    cooling: float = 1.0
    """by what the run's temperature is multiplied"""


@dataclass(frozen=True)
class Result:
    """What an arm brought on one prompt. Numbers that were not measured are NaN."""

    arm: Arm
    completion: Completion | None = None
    refused: str = ""
    """why it did not run, if it did not"""
    grades: tuple[Grade, ...] = ()
    """of each sample, where there is a grader"""
    nll: float = math.nan
    """negative log-likelihood of the samples' tokens under the undisturbed model at temperature 1, in nats a token"""
    scores: TextScores = field(default_factory=TextScores)
    """of open-ended answers"""

    @property
    def cost(self) -> Cost:
        """What it took; nothing if it did not run."""
        return Cost(0, 0, 0, 0.0) if self.completion is None else self.completion.cost

    @property
    def distinct(self) -> int:
        """Different texts among the samples."""
        return 0 if self.completion is None else len({sample.text.strip() for sample in self.completion.samples})

    @property
    def vendi(self) -> float:
        """Effective number of different samples: that of `scores`, else under the n-gram kernel of their words."""
        if not math.isnan(self.scores.vendi):
            return self.scores.vendi
        texts = [] if self.completion is None else [sample.text.split() for sample in self.completion.samples]
        return vendi_score(ngram_embedding(texts)) if texts else math.nan

    @property
    def correct(self) -> float:
        """Share of right samples."""
        return sum(grade.correct for grade in self.grades) / len(self.grades) if self.grades else math.nan

    @property
    def solutions(self) -> int:
        """Different right solutions."""
        return len({grade.canonical for grade in self.grades if grade.correct})

    @property
    def cut(self) -> int:
        """Samples that ran out of tokens."""
        samples = () if self.completion is None else self.completion.samples
        return sum(sample.finish_reason == "length" for sample in samples)

    def per_thousand(self, count: float) -> float:
        """`count` for every thousand tokens that were generated."""
        return 1000 * count / self.cost.tokens if self.cost.tokens else math.nan


@dataclass(frozen=True)
class Question:
    """A prompt, and how its answers are graded."""

    prompt: Prompt
    grade: Grader | None = None

    @property
    def text(self) -> str:
        """The prompt as people read it: its last message, if it is a chat."""
        return text_of(self.prompt.content)


def text_of(content: Content) -> str:
    """A text prompt itself, or the last message of a chat."""
    return content if isinstance(content, str) else content[-1]["content"]


@dataclass(frozen=True)
class Comparison:
    """The same prompts, answered in every way."""

    prompts: tuple[str, ...]
    n: int
    sampling: Sampling
    results: tuple[tuple[Result, ...], ...] = ()
    """for each arm one a prompt; for an arm that did not run, one that says why"""
    graded: bool = False

    @property
    def ran(self) -> list[tuple[Result, ...]]:
        """The arms that ran."""
        return [results for results in self.results if results[0].completion is not None]

    @property
    def refused(self) -> list[Result]:
        """One result for each arm that did not."""
        return [results[0] for results in self.results if results[0].completion is None]


def every_arm() -> list[Arm]:
    """All installed methods with their defaults, ESamp as published and by actions, and what must stand beside them."""
    arms = [Arm("vanilla", "vanilla")]
    arms += [Arm(f"vanilla T x {cooling:.2f}", "vanilla", cooling=cooling) for cooling in COOLER]
    arms += [
        Arm("esamp", "esamp"),
        Arm("esamp paper", "esamp", ESampConfig(preset="paper")),
        Arm("esamp action", "esamp", ESampConfig(signal="action")),
        Arm("esamp+fire", "esamp+fire"),
    ]
    known = {arm.method for arm in arms}
    return arms + [Arm(name, name) for name in registry.names() if name not in known]


def compare(
    engine: Engine,
    questions: Sequence[Question],
    arms: Sequence[Arm],
    *,
    n: int,
    sampling: Sampling,
    seed: int = 0,
    meter: TextMeter | None = None,
    strict: bool = False,
    progress: Progress | None = None,
) -> Iterator[tuple[Result, ...]]:
    """Answer the questions with every arm, one after the other, so that each has the machine for itself.

    An arm that cannot run on this engine or model has one result that says why; with `strict` that is an error. With a
    `meter` answers are measured as open-ended texts.

    Raises:
        EsampError: with `strict`, what kept an arm from running.
    """
    if meter is not None:
        meter.about([question.text for question in questions])
    for arm in arms:
        own = sampling.replace(temperature=sampling.temperature * arm.cooling) if arm.cooling != 1 else sampling
        requests = [
            Request(
                question.prompt.id,
                question.prompt.content,
                n=n,
                sampling=own,
                method=arm.method,
                options=arm.options,
                seed=seed + question.prompt.repeat,
            )
            for question in questions
        ]
        try:
            found = {each.request.id: each for each in answer(engine, requests, progress=progress)}
            for completion in found.values():
                check_active(completion)
        except EsampError as error:
            if strict:
                raise
            if progress is not None:
                progress(n * len(questions), 0)
            yield (Result(arm, refused=str(error)),)
            continue
        yield tuple(
            _result(engine, arm, question, request, found[request.id], meter)
            for question, request in zip(questions, requests, strict=True)
        )


def _result(
    engine: Engine, arm: Arm, question: Question, request: Request, completion: Completion, meter: TextMeter | None
) -> Result:
    texts = [sample.text for sample in completion.samples]
    grades = () if question.grade is None else tuple(map(question.grade, texts))
    scores = TextScores() if meter is None else meter.measure(question.text, texts)
    return Result(arm, completion, grades=grades, nll=_surprise(engine, request, completion), scores=scores)


def _surprise(engine: Engine, request: Request, completion: Completion) -> float:
    """Nats a token over all samples; NaN where the engine cannot tell."""
    try:
        found = engine.score(request, completion.samples)
    except EsampError:
        return math.nan
    tokens = [len(sample.token_ids) for sample in completion.samples]
    known = [(each.total, count) for each, count in zip(found, tokens, strict=True) if math.isfinite(each.total)]
    return -sum(total for total, _ in known) / max(1, sum(count for _, count in known)) if known else math.nan


def arm_of(label: str, method: str, options: dict[str, object]) -> Arm:
    """An arm by name and options.

    Raises:
        OptionError: there is no such method or option.
    """
    cls = registry.get(method).options
    try:
        return Arm(label, method, cls.parse(options))
    except OptionError as error:
        raise OptionError(f"method {method!r}: {error}") from None
