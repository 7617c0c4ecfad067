"""`esamp compare`: answer the same prompts with several arms, and measure the answers and their cost."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from esamp.analysis.measures import distinct_correct, share_correct
from esamp.analysis.text_scores import TextScorer, TextScores
from esamp.compare.arms import decode_prompts
from esamp.engines.base import Completion, Engine, Progress
from esamp.engines.cost import Cost
from esamp.engines.titles import last_text
from esamp.errors import EsampError, OptionError
from esamp.explorer.config import ESampConfig
from esamp.methods import registry
from esamp.metrics.vendi import ngram_vendi
from esamp.options import Options
from esamp.runs.prompts import Prompt
from esamp.sampling import Sampling
from esamp.study.arm import Arm
from esamp.tasks.base import Grade

Grader = Callable[[str], Grade]
BETA = ESampConfig().beta
COOLINGS = (1 / (1 + BETA), 1 / 1.25)
"""ESamp whose distiller predicts nothing samples at T / (1 + beta): for the default beta, and for the published one."""


@dataclass(frozen=True)
class ComparedArm:
    """A method to compare. It may turn out not to exist or not to run, which is then its result."""

    label: str
    method: str
    options: Options | None = None
    """None for the method's defaults"""
    cooling: float = 1.0
    """factor on the temperature of the comparison"""

    def resolve(self, sampling: Sampling) -> Arm:
        """The arm, given the settings of the sampler.

        Raises:
            EsampError: the method does not exist or cannot be imported.
        """
        if self.cooling != 1:
            sampling = sampling.replace(temperature=sampling.temperature * self.cooling)
        options = registry.get(self.method).options() if self.options is None else self.options
        return Arm(self.label, self.method, options, sampling)


@dataclass(frozen=True)
class PromptResult:
    """The answers of an arm to one prompt. Numbers that were not measured are NaN."""

    arm: ComparedArm
    completion: Completion | None = None
    refused: str = ""
    """the reason if the arm did not run"""
    grades: tuple[Grade, ...] = ()
    """of each sample, if the prompt is graded"""
    nll: float = math.nan
    """negative log-likelihood per token of the samples under the undisturbed model at temperature 1, in nats"""
    scores: TextScores = field(default_factory=TextScores)
    """of open-ended answers"""

    @property
    def cost(self) -> Cost:
        """The cost of the answers; zero if the arm did not run."""
        return Cost(0, 0, 0, 0.0) if self.completion is None else self.completion.cost

    @property
    def distinct(self) -> int:
        """Number of different texts among the samples."""
        return 0 if self.completion is None else len({sample.text.strip() for sample in self.completion.samples})

    @property
    def vendi(self) -> float:
        """Effective number of different samples: that of `scores`, else under the n-gram kernel of their words."""
        if not math.isnan(self.scores.vendi):
            return self.scores.vendi
        texts = [] if self.completion is None else [sample.text.split() for sample in self.completion.samples]
        return ngram_vendi(texts) if texts else math.nan

    @property
    def correct(self) -> float:
        """Share of right samples."""
        return share_correct(self.grades)

    @property
    def solutions(self) -> int:
        """Number of different right solutions."""
        return distinct_correct(self.grades)

    @property
    def cut(self) -> int:
        """Number of samples that ran out of tokens."""
        samples = () if self.completion is None else self.completion.samples
        return sum(sample.finish_reason == "length" for sample in samples)

    def per_thousand(self, count: float) -> float:
        """`count` per thousand generated tokens."""
        return 1000 * count / self.cost.tokens if self.cost.tokens else math.nan


@dataclass(frozen=True)
class ComparedPrompt:
    """A prompt, and the grader of its answers if they can be right."""

    prompt: Prompt
    grade: Grader | None = None

    @property
    def text(self) -> str:
        """The prompt for readers: of a chat the last message."""
        return last_text(self.prompt.content)


@dataclass(frozen=True)
class Comparison:
    """The results of all arms on the same prompts."""

    prompts: tuple[str, ...]
    n: int
    sampling: Sampling
    results: tuple[tuple[PromptResult, ...], ...] = ()
    """for each arm one result per prompt; for an arm that did not run, one result with the reason"""
    graded: bool = False

    @property
    def ran(self) -> list[tuple[PromptResult, ...]]:
        """The results of the arms that ran."""
        return [results for results in self.results if results[0].completion is not None]

    @property
    def refused(self) -> list[PromptResult]:
        """One result for each arm that did not run."""
        return [results[0] for results in self.results if results[0].completion is None]


def all_arms() -> list[ComparedArm]:
    """All installed methods with their defaults, variants of ESamp, and plain sampling at lower temperatures."""
    arms = [ComparedArm("vanilla", "vanilla")]
    arms += [ComparedArm(f"vanilla T x {cooling:.2f}", "vanilla", cooling=cooling) for cooling in COOLINGS]
    arms += [
        ComparedArm("esamp", "esamp"),
        ComparedArm("esamp paper", "esamp", ESampConfig(preset="paper")),
        ComparedArm("esamp action", "esamp", ESampConfig(signal="action")),
        ComparedArm("esamp+fire", "esamp+fire"),
    ]
    known = {arm.method for arm in arms}
    return arms + [ComparedArm(name, name) for name in registry.names() if name not in known]


def named_arm(label: str, method: str, options: dict[str, object]) -> ComparedArm:
    """An arm by the name of its method and its options.

    Raises:
        OptionError: there is no such method or option.
    """
    cls = registry.get(method).options
    try:
        return ComparedArm(label, method, cls.parse(options))
    except OptionError as error:
        raise OptionError(f"method {method!r}: {error}") from None


def compare(
    engine: Engine,
    prompts: Sequence[ComparedPrompt],
    arms: Sequence[ComparedArm],
    *,
    n: int,
    sampling: Sampling,
    seed: int = 0,
    scorer: TextScorer | None = None,
    strict: bool = False,
    progress: Progress | None = None,
) -> Iterator[tuple[PromptResult, ...]]:
    """Answer the prompts with every arm, one arm after the other, so that none shares the machine with another.

    Args:
        engine: runs the requests.
        prompts: prompts and graders.
        arms: the methods to compare.
        n: samples of each prompt.
        sampling: settings of the sampler that all arms start from.
        seed: seed of the sampling.
        scorer: measures the answers as open-ended texts; None for no such scores.
        strict: raise the error of an arm that cannot run, instead of yielding one result with the reason.
        progress: called with the samples finished and the tokens generated.

    Yields:
        The results of one arm, one per prompt.

    Raises:
        EsampError: with `strict`, an arm cannot run.
    """
    if scorer is not None:
        scorer.set_prompts([prompt.text for prompt in prompts])
    contents = [prompt.prompt for prompt in prompts]
    for arm in arms:
        try:
            found = decode_prompts(engine, arm.resolve(sampling), contents, n=n, seed=seed, progress=progress)
        except EsampError as error:
            if strict:
                raise
            if progress is not None:
                progress(n * len(prompts), 0)
            yield (PromptResult(arm, refused=str(error)),)
            continue
        yield tuple(
            _result(engine, arm, prompt, completion, scorer) for prompt, completion in zip(prompts, found, strict=True)
        )


def _result(
    engine: Engine, arm: ComparedArm, prompt: ComparedPrompt, completion: Completion, scorer: TextScorer | None
) -> PromptResult:
    texts = [sample.text for sample in completion.samples]
    grades = () if prompt.grade is None else tuple(map(prompt.grade, texts))
    scores = TextScores() if scorer is None else scorer.score(prompt.text, texts)
    return PromptResult(arm, completion, grades=grades, nll=_nll(engine, completion), scores=scores)


def _nll(engine: Engine, completion: Completion) -> float:
    """Negative log-likelihood per token over all samples, in nats; NaN if the engine cannot measure it."""
    try:
        found = engine.score(completion.request, completion.samples)
    except EsampError:
        return math.nan
    tokens = [len(sample.token_ids) for sample in completion.samples]
    known = [(each.total, count) for each, count in zip(found, tokens, strict=True) if math.isfinite(each.total)]
    return -sum(total for total, _ in known) / max(1, sum(count for _, count in known)) if known else math.nan
