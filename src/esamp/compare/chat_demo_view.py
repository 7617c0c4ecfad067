"""What the demo on a chat model shows: the table, sentences about it, the HTML page, JSON."""

import math
from collections.abc import Sequence
from dataclasses import asdict

from esamp.analysis.text_scores import TextScorer
from esamp.compare.chat_demo import ChatResult, comparable, default_of, gain, most_telling
from esamp.compare.formatting import finite_or_none, number_text, sample_view
from esamp.engines.base import Completion
from esamp.report.pages import ComparisonTable, ProblemView, SamplesPage, SampleView

NAME, UNIT, SHARES = "Vendi", "perplexity", (("nonwords", "non-words"), ("loops", "loops"), ("on_topic", "on topic"))


def table(results: Sequence[ChatResult], scorer: TextScorer, *, marked: str | None = None) -> ComparisonTable:
    """Means over the prompts as formatted cells, without the columns that cannot be measured here.

    Args:
        results: of each arm.
        scorer: measured them.
        marked: label of the arm to emphasise; by default ESamp with its default options, which must be there then.
    """
    shares = [(name, head) for name, head in SHARES if any(math.isfinite(result.mean(name)) for result in results)]
    rows = [
        (
            result.arm.label,
            f"{result.mean('vendi'):.1f}",
            number_text(result.perplexity, 1),
            *(number_text(100 * result.mean(name), 1 if name == "nonwords" else 0, " %") for name, _ in shares),
            f"{result.tokens:.0f}",
        )
        for result in results
    ]
    columns = ("decoding", NAME, UNIT, *(head for _, head in shares), "tokens")
    return ComparisonTable(columns, rows, _note(results, scorer), marked=marked or default_of(results).arm.label)


def _note(results: Sequence[ChatResult], scorer: TextScorer) -> str:
    samples = len(results[0].completions[0].samples)
    kind = "sentence embeddings" if scorer.embeds else "word n-grams, which saturate"
    parts = [
        f"{NAME}: how many different texts the {samples} samples of a prompt amount to, by {kind}.",
        f"{UNIT}: under the model itself at temperature 1; higher is less fluent.",
        "non-words: words that are not English. loops: samples that repeat themselves.",
    ]
    if scorer.embeds:
        parts.append("on topic: samples nearer to their own prompt than to nearly all of 60 prompts.")
    return " ".join(parts)


def verdict(results: Sequence[ChatResult]) -> list[str]:
    """Sentences about what the numbers show and what they do not."""
    found, own = gain(results), default_of(results)
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


def page(results: Sequence[ChatResult], scorer: TextScorer, prompts: Sequence[str], *, footer: str) -> SamplesPage:
    """All samples, with tokens coloured by how much exploring changed them. It opens on the most telling prompt."""
    first = [comparable(results), default_of(results)]
    ordered = [*first, *(result for result in results if result not in first)]
    problems = []
    for index, prompt in enumerate(prompts):
        arms = {result.arm.label: _views(result, index) for result in ordered}
        remarks = {result.arm.label: remark(result, index) for result in ordered}
        problems.append(ProblemView(str(index + 1), prompt, "", arms, remarks))
    return SamplesPage(
        "Exploratory Sampling on a chat model",
        verdict(results),
        table(results, scorer),
        problems,
        footer,
        opens=most_telling(results),
        noun="Prompt",
    )


def _views(result: ChatResult, index: int) -> list[SampleView]:
    plain = result.arm.method == "vanilla"
    return [sample_view(sample, plain=plain) for sample in result.completions[index].samples]


def remark(result: ChatResult, index: int) -> str:
    """What the samples of one prompt amount to, in words."""
    score, count = result.scores[index], len(result.completions[index].samples)
    perplexity = f" at perplexity {math.exp(nll):.1f}" if math.isfinite(nll := result.nll[index]) else ""
    return f"{count} samples, worth {score.vendi:.1f} different ones{perplexity}"


def beside(results: Sequence[ChatResult], prompt: int, count: int = 4) -> tuple[list[str], list[str]]:
    """The first `count` samples of one prompt from the comparable arm and from the default, unselected."""
    left, right = comparable(results), default_of(results)
    return _texts(left.completions[prompt], count), _texts(right.completions[prompt], count)


def _texts(completion: Completion, count: int) -> list[str]:
    return [sample.text for sample in completion.samples[:count]]


def as_json(results: Sequence[ChatResult], prompts: Sequence[str]) -> dict[str, object]:
    """Every number of the table by prompt, unformatted, and all samples."""
    found = gain(results)
    return {
        "prompts": list(prompts),
        "shown": most_telling(results),
        "arms": [_numbers(result, results) for result in results],
        "gain": {
            "against": f"plain sampling {found.where}",
            "default": found.own,
            "plain": found.plain,
            **{name: finite_or_none(value) for name, value in asdict(found.difference).items()},
        },
        "verdict": verdict(results),
    }


def _numbers(result: ChatResult, results: Sequence[ChatResult]) -> dict[str, object]:
    scores = list(map(asdict, result.scores))
    return {
        "arm": result.arm.label,
        "default": result is default_of(results),
        "comparable": result is comparable(results),
        "sampling": result.completions[0].request.own_sampling.model_dump(exclude_defaults=True),
        "options": None if result.arm.method == "vanilla" else result.arm.options.model_dump(exclude_unset=True),
        "perplexity": [finite_or_none(math.exp(value)) for value in result.nll],
        **{name: [finite_or_none(score[name]) for score in scores] for name in scores[0]},
        "tokens": result.tokens,
        "seconds": sum({completion.seconds for completion in result.completions}),
        "samples": [[sample.text for sample in completion.samples] for completion in result.completions],
    }
