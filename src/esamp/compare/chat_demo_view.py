"""What the chat-model demonstration shows: a table, a sentence, the HTML page, JSON."""

import math
from collections.abc import Sequence
from dataclasses import asdict

from esamp.analysis.texts import TextMeter
from esamp.compare.chat_demo import Outcome, comparable, default_of, gain, most_telling
from esamp.engines.base import Completion, Sample
from esamp.report.pages import ComparisonTable, ProblemView, SamplesPage, SampleView

NAME, UNIT, SHARES = "Vendi", "perplexity", (("nonwords", "non-words"), ("loops", "loops"), ("on_topic", "on topic"))


def table(outcomes: Sequence[Outcome], meter: TextMeter) -> ComparisonTable:
    """Means over the prompts as formatted cells; columns that cannot be measured here are left out."""
    shares = [(name, head) for name, head in SHARES if any(math.isfinite(each.mean(name)) for each in outcomes)]
    rows = [
        (
            each.arm.name,
            f"{each.mean('vendi'):.1f}",
            _number(each.perplexity, 1),
            *(_number(100 * each.mean(name), 1 if name == "nonwords" else 0, " %") for name, _ in shares),
            f"{each.tokens:.0f}",
        )
        for each in outcomes
    ]
    columns = ("decoding", NAME, UNIT, *(head for _, head in shares), "tokens")
    return ComparisonTable(columns, rows, _note(outcomes, meter), marked=default_of(outcomes).arm.name)


def _note(outcomes: Sequence[Outcome], meter: TextMeter) -> str:
    samples = len(outcomes[0].completions[0].samples)
    kind = "sentence embeddings" if meter.embeds else "word n-grams, which saturate"
    parts = [
        f"{NAME}: how many different texts the {samples} samples of a prompt amount to, by {kind}.",
        f"{UNIT}: under the model itself at temperature 1; higher is less fluent.",
        "non-words: words that are not English. loops: samples that repeat themselves.",
    ]
    if meter.embeds:
        parts.append("on topic: samples nearer to their own prompt than to nearly all of 60 prompts.")
    return " ".join(parts)


def verdict(outcomes: Sequence[Outcome]) -> list[str]:
    """What the numbers show, and what they do not."""
    found, own = gain(outcomes), default_of(outcomes)
    prompts, samples = len(own.completions), len(own.completions[0].samples)
    change = f"{found.difference.estimate:+.1f} [{found.difference.low:+.1f}, {found.difference.high:+.1f}]"
    numbers = (
        f"{found.own:.1f} effectively different texts of {samples} by ESamp and {found.plain:.1f} by plain sampling "
        f"{found.where}: {change}."
    )
    first = numbers if found.difference.low > 0 else f"No gain that can be told from chance: {numbers}"
    second = (
        f"The interval is over {prompts} prompts drawn by chance, with one seed: it shows how the methods behave "
        "here and does not rank them elsewhere. More variety is worth it only while the other columns hold."
    )
    return [first, second]


def page(outcomes: Sequence[Outcome], meter: TextMeter, prompts: Sequence[str], *, footer: str) -> SamplesPage:
    """All samples, every token coloured by how much exploring changed it; opens on the most telling prompt."""
    beside = [comparable(outcomes), default_of(outcomes)]
    ordered = [*beside, *(each for each in outcomes if each not in beside)]
    problems = []
    for place, prompt in enumerate(prompts):
        arms = {each.arm.name: [_view(s, each) for s in each.completions[place].samples] for each in ordered}
        remarks = {each.arm.name: _remark(each, place) for each in ordered}
        problems.append(ProblemView(str(place + 1), prompt, "", arms, remarks))
    return SamplesPage(
        "Exploratory Sampling on a chat model",
        verdict(outcomes),
        table(outcomes, meter),
        problems,
        footer,
        opens=most_telling(outcomes),
        noun="Prompt",
    )


def _remark(outcome: Outcome, place: int) -> str:
    score, count = outcome.scores[place], len(outcome.completions[place].samples)
    perplexity = _number(math.exp(outcome.nll[place]), 1)
    return f"{count} samples, worth {score.vendi:.1f} different ones at perplexity {perplexity}"


def _view(sample: Sample, outcome: Outcome) -> SampleView:
    trace = sample.trace
    if trace is None:
        return SampleView([sample.text])
    # Without a method that steers, nothing changes: the divergence is zero and not unknown.
    change = trace.kl.tolist() if outcome.arm.options is not None else [0.0] * len(trace.pieces)
    return SampleView(trace.pieces, trace.novelty.tolist(), change, trace.surprisal.tolist())


def beside(outcomes: Sequence[Outcome], prompt: int, count: int = 4) -> tuple[list[str], list[str]]:
    """The first `count` samples of one prompt from the comparable arm and from the default, unselected."""
    left, right = comparable(outcomes), default_of(outcomes)
    return _texts(left.completions[prompt], count), _texts(right.completions[prompt], count)


def _texts(completion: Completion, count: int) -> list[str]:
    return [sample.text for sample in completion.samples[:count]]


def as_json(outcomes: Sequence[Outcome], prompts: Sequence[str]) -> dict[str, object]:
    """Every number of the table by prompt, unformatted, and all samples."""
    found = gain(outcomes)
    return {
        "prompts": list(prompts),
        "shown": most_telling(outcomes),
        "arms": [_numbers(each, outcomes) for each in outcomes],
        "gain": {
            "against": f"plain sampling {found.where}",
            "default": found.own,
            "plain": found.plain,
            **{name: _finite(value) for name, value in asdict(found.difference).items()},
        },
        "verdict": verdict(outcomes),
    }


def _numbers(outcome: Outcome, outcomes: Sequence[Outcome]) -> dict[str, object]:
    return {
        "arm": outcome.arm.name,
        "default": outcome is default_of(outcomes),
        "comparable": outcome is comparable(outcomes),
        "sampling": outcome.completions[0].request.own_sampling.model_dump(exclude_defaults=True),
        "options": None if outcome.arm.options is None else outcome.arm.options.model_dump(exclude_unset=True),
        "perplexity": [_finite(math.exp(value)) for value in outcome.nll],
        **{name: [_finite(score[name]) for score in map(asdict, outcome.scores)] for name in asdict(outcome.scores[0])},
        "tokens": outcome.tokens,
        "seconds": sum({completion.seconds for completion in outcome.completions}),
        "samples": [[sample.text for sample in completion.samples] for completion in outcome.completions],
    }


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _number(value: float, digits: int, unit: str = "") -> str:
    return f"{value:.{digits}f}{unit}" if math.isfinite(value) else "-"
