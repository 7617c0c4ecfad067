"""`esamp demo` on a chat model: the same open-ended prompts with plain sampling, top-p and ESamp."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from esamp.analysis.statistics import generator
from esamp.analysis.text_scores import TextScorer, TextScores
from esamp.compare.arms import decode_prompts, esamp_arm, vanilla_arm
from esamp.engines.base import Completion, Engine, Progress, Sample
from esamp.explorer.config import ESampConfig
from esamp.metrics.intervals import Interval, bootstrap_mean
from esamp.runs.prompts import Prompt
from esamp.sampling import Sampling
from esamp.study.arm import Arm

DEFAULT = esamp_arm("ESamp (default)")
ARMS = (
    vanilla_arm("plain sampling, temperature 0.7", Sampling(temperature=0.7)),
    vanilla_arm("plain sampling, temperature 1"),
    vanilla_arm("top-p 0.9", Sampling(top_p=0.9)),
    esamp_arm("ESamp as published", ESampConfig(preset="paper")),
    DEFAULT,
)


def is_unfiltered(arm: Arm) -> bool:
    """Whether an arm is ordinary sampling without any filter, whose only setting is the temperature."""
    return arm.method == "vanilla" and arm.sampling.top_p == 1 and arm.sampling.min_p == 0


@dataclass(frozen=True)
class ChatResult:
    """The answers of one arm to P prompts, n samples each."""

    arm: Arm
    completions: tuple[Completion, ...]
    scores: tuple[TextScores, ...]

    @property
    def vendi(self) -> NDArray[np.float64]:
        """`[P]`, effective number of different texts among the n."""
        return np.array([score.vendi for score in self.scores])

    @property
    def nll(self) -> NDArray[np.float64]:
        """`[P]`, nats per token under the undisturbed model at temperature 1, without the first token of a sample."""
        return np.array([_nll(completion.samples) for completion in self.completions])

    @property
    def perplexity(self) -> float:
        """The exponential of the mean of `nll`."""
        return float(np.exp(np.mean(self.nll)))

    @property
    def tokens(self) -> float:
        """Mean number of tokens of a sample."""
        lengths = [len(sample.token_ids) for completion in self.completions for sample in completion.samples]
        return float(np.mean(lengths))

    def mean(self, name: str) -> float:
        """Mean over prompts of one of the `TextScores`; NaN if it was not measured for any prompt."""
        values = [value for score in self.scores if np.isfinite(value := asdict(score)[name])]
        return float(np.mean(values)) if values else float("nan")


@dataclass(frozen=True)
class Gain:
    """The Vendi Score of the default against that of plain sampling at the same perplexity, on P prompts."""

    difference: Interval
    """over prompts"""
    own: float
    """mean over prompts for the default"""
    plain: float
    """mean over prompts for plain sampling"""
    where: str
    """the point of plain sampling, in words that follow "plain sampling" """


def run(
    engine: Engine,
    prompts: Sequence[str],
    scorer: TextScorer,
    *,
    chat: bool,
    samples: int,
    max_tokens: int,
    seed: int = 0,
    arms: Sequence[Arm] = ARMS,
    progress: Progress | None = None,
) -> list[ChatResult]:
    """Answer all prompts with every arm.

    Args:
        engine: must keep traces.
        prompts: texts.
        scorer: measures the answers.
        chat: whether a prompt is sent as a user's message.
        samples: number of samples of each prompt.
        max_tokens: longest sample.
        seed: seed of the sampling.
        arms: ways to decode.
        progress: called with the samples finished and the tokens generated.

    Raises:
        InactiveMethodError: an arm should have explored and did not.
    """
    scorer.set_prompts(prompts)
    contents = [
        Prompt(str(number), ({"role": "user", "content": text},) if chat else text)
        for number, text in enumerate(prompts)
    ]
    results = []
    for arm in arms:
        completions = decode_prompts(
            engine, arm, contents, n=samples, seed=seed, max_tokens=max_tokens, progress=progress
        )
        scores = tuple(
            scorer.score(prompt, [sample.text for sample in completion.samples])
            for prompt, completion in zip(prompts, completions, strict=True)
        )
        results.append(ChatResult(arm, completions, scores))
    return results


def default_of(results: Sequence[ChatResult]) -> ChatResult:
    """The result of ESamp with its default options."""
    return next(result for result in results if result.arm == DEFAULT)


def comparable(results: Sequence[ChatResult]) -> ChatResult:
    """The result of plain sampling whose perplexity is nearest to the default's, to be read beside it."""
    own = np.mean(default_of(results).nll)
    plain = (result for result in results if is_unfiltered(result.arm))
    return min(plain, key=lambda result: abs(float(np.mean(result.nll) - own)))


def most_telling(results: Sequence[ChatResult]) -> int:
    """The index of the prompt on which the default's Vendi Score exceeds that of the comparable arm most."""
    return int(np.argmax(default_of(results).vendi - comparable(results).vendi))


def gain(results: Sequence[ChatResult]) -> Gain:
    """The gain in Vendi Score at equal perplexity.

    Plain sampling is interpolated between its two temperatures, linearly in log perplexity. Outside of their range the
    nearer temperature is taken, and `Gain.where` says so.
    """
    own = default_of(results)
    plain = (result for result in results if is_unfiltered(result.arm))
    cool, hot = sorted(plain, key=lambda result: result.arm.sampling.temperature)
    low, high, target = (float(np.mean(result.nll)) for result in (cool, hot, own))
    share = (target - low) / (high - low) if high > low else 0.5
    mixed = (1 - min(1, max(0, share))) * cool.vendi + min(1, max(0, share)) * hot.vendi
    if share < 0:
        where = f"at temperature {cool.arm.sampling.temperature:g}, which has a higher perplexity"
    elif share > 1:
        where = f"at temperature {hot.arm.sampling.temperature:g}, which has a lower perplexity"
    else:
        where = "at the same perplexity"
    difference = bootstrap_mean(own.vendi - mixed, generator())
    return Gain(difference, float(np.mean(own.vendi)), float(np.mean(mixed)), where)


def _nll(samples: Sequence[Sample]) -> float:
    """Mean over all tokens except the first of each sample; NaN where nothing was measured."""
    values = [sample.trace.surprisal.numpy()[1:] for sample in samples if sample.trace is not None]
    measured = np.concatenate(values) if values else np.array([])
    measured = measured[np.isfinite(measured)]
    return float(measured.mean()) if len(measured) else float("nan")
