"""The demonstration on a chat model: the same open-ended prompts with plain sampling, top-p and ESamp."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from esamp.analysis.texts import TextMeter, TextScores
from esamp.engines.base import Completion, Engine, Progress, Request, Sample
from esamp.engines.checks import check_active
from esamp.explorer.config import ESampConfig
from esamp.metrics.intervals import Interval, bootstrap_mean
from esamp.sampling import Sampling


@dataclass(frozen=True)
class OpenArm:
    """One way to decode."""

    name: str
    """in words, for people"""
    sampling: Sampling
    options: ESampConfig | None = None
    """None decodes without exploring"""

    @property
    def plain(self) -> bool:
        """Whether it is ordinary sampling without any filter, whose only setting is the temperature."""
        return self.options is None and self.sampling.top_p == 1 and self.sampling.min_p == 0


DEFAULT = OpenArm("ESamp (default)", Sampling(), ESampConfig())
ARMS = (
    OpenArm("plain sampling, temperature 0.7", Sampling(temperature=0.7)),
    OpenArm("plain sampling, temperature 1", Sampling()),
    OpenArm("top-p 0.9", Sampling(top_p=0.9)),
    OpenArm("ESamp as published", Sampling(), ESampConfig(preset="paper")),
    DEFAULT,
)


@dataclass(frozen=True)
class Outcome:
    """What one arm did with P prompts, n samples each."""

    arm: OpenArm
    completions: tuple[Completion, ...]
    scores: tuple[TextScores, ...]

    @property
    def vendi(self) -> NDArray[np.float64]:
        """`[P]`, effective number of different texts among the n."""
        return np.array([score.vendi for score in self.scores])

    @property
    def nll(self) -> NDArray[np.float64]:
        """`[P]`, nats a token under the undisturbed model at temperature 1, without the first token of a sample."""
        return np.array([_nll(completion.samples) for completion in self.completions])

    @property
    def perplexity(self) -> float:
        """Of the whole arm: exp of the mean of `nll`."""
        return float(np.exp(np.mean(self.nll)))

    @property
    def tokens(self) -> float:
        """Tokens a sample."""
        return float(np.mean([len(sample.token_ids) for each in self.completions for sample in each.samples]))

    def mean(self, name: str) -> float:
        """Mean over prompts of one of the `TextScores`; NaN where it was not measured for any of them."""
        values = [value for score in self.scores if np.isfinite(value := asdict(score)[name])]
        return float(np.mean(values)) if values else float("nan")


@dataclass(frozen=True)
class Gain:
    """The default's Vendi Score beside that of plain sampling at the same perplexity, on P prompts."""

    difference: Interval
    """over prompts"""
    own: float
    """mean over prompts for the default"""
    plain: float
    """mean over prompts for plain sampling"""
    where: str
    """what is compared, in words that follow "plain sampling" """


def run(
    engine: Engine,
    prompts: Sequence[str],
    meter: TextMeter,
    *,
    chat: bool,
    samples: int,
    max_tokens: int,
    seed: int = 0,
    arms: Sequence[OpenArm] = ARMS,
    progress: Progress | None = None,
) -> list[Outcome]:
    """Answer all `prompts` with every arm. The engine must keep traces; `chat` sends a prompt as a user's message.

    Raises:
        InactiveMethodError: an arm that should explore never did.
    """
    meter.about(prompts)
    outcomes = []
    for arm in arms:
        sampling = arm.sampling.replace(max_tokens=max_tokens)
        method = "vanilla" if arm.options is None else "esamp"
        requests = [
            Request(
                str(place),
                ({"role": "user", "content": prompt},) if chat else prompt,
                n=samples,
                sampling=sampling,
                method=method,
                options=arm.options,
                seed=seed,
            )
            for place, prompt in enumerate(prompts)
        ]
        found = {each.request.id: each for each in engine.generate(requests, progress=progress)}
        completions = tuple(found[request.id] for request in requests)
        for completion in completions:
            check_active(completion)
        scores = tuple(
            meter.measure(prompt, [sample.text for sample in completion.samples])
            for prompt, completion in zip(prompts, completions, strict=True)
        )
        outcomes.append(Outcome(arm, completions, scores))
    return outcomes


def default_of(outcomes: Sequence[Outcome]) -> Outcome:
    """The arm with our default options."""
    return next(each for each in outcomes if each.arm == DEFAULT)


def comparable(outcomes: Sequence[Outcome]) -> Outcome:
    """The plain-sampling arm whose perplexity is nearest to the default's: the two to read beside each other."""
    own = np.mean(default_of(outcomes).nll)
    return min((each for each in outcomes if each.arm.plain), key=lambda each: abs(float(np.mean(each.nll) - own)))


def most_telling(outcomes: Sequence[Outcome]) -> int:
    """The prompt on which the default's Vendi Score is farthest above that of the comparable arm."""
    return int(np.argmax(default_of(outcomes).vendi - comparable(outcomes).vendi))


def gain(outcomes: Sequence[Outcome]) -> Gain:
    """Vendi Score at equal perplexity, plain sampling being interpolated between its two temperatures.

    Linear in log perplexity. Outside of their range the nearer temperature is taken as it is, and the words say so.
    """
    own = default_of(outcomes)
    cool, hot = sorted((each for each in outcomes if each.arm.plain), key=lambda each: each.arm.sampling.temperature)
    low, high, at = (float(np.mean(each.nll)) for each in (cool, hot, own))
    share = (at - low) / (high - low) if high > low else 0.5
    mixed = (1 - min(1, max(0, share))) * cool.vendi + min(1, max(0, share)) * hot.vendi
    if share < 0:
        where = f"at temperature {cool.arm.sampling.temperature:g}, which has a higher perplexity"
    elif share > 1:
        where = f"at temperature {hot.arm.sampling.temperature:g}, which has a lower perplexity"
    else:
        where = "at the same perplexity"
    difference = bootstrap_mean(own.vendi - mixed, np.random.default_rng(0))
    return Gain(difference, float(np.mean(own.vendi)), float(np.mean(mixed)), where)


def _nll(samples: Sequence[Sample]) -> float:
    """Mean over all tokens but the first of each sample; NaN where nothing was measured."""
    values = [sample.trace.surprisal.numpy()[1:] for sample in samples if sample.trace is not None]
    measured = np.concatenate(values) if values else np.array([])
    measured = measured[np.isfinite(measured)]
    return float(measured.mean()) if len(measured) else float("nan")
