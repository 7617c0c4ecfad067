"""The work of `esamp compare`."""

import shlex
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from esamp.analysis.text_scores import TextScorer
from esamp.cli import method_text
from esamp.cli.compare import CompareOptions
from esamp.cli.documents import print_document
from esamp.cli.messages import message
from esamp.cli.pages import check_page, footer, write_page
from esamp.cli.progress import TITLE, SampleBar
from esamp.cli.prompts import read_file, templated
from esamp.cli.sample_text import LONGEST_HEADING
from esamp.cli.samples import console_for, print_samples, print_table, print_text
from esamp.cli.terminal import hush
from esamp.compare import comparison, comparison_view
from esamp.compare.comparison import ComparedArm, ComparedPrompt, Comparison, PromptResult
from esamp.engines import registry as engines
from esamp.engines.base import Engine
from esamp.engines.titles import last_text
from esamp.errors import OptionError
from esamp.methods import registry
from esamp.quoting import cut_at_word, first_words
from esamp.report.pages import render
from esamp.runs import prompts as sources
from esamp.runs.prompts import Prompt
from esamp.sampling import Sampling
from esamp.search.over import layers
from esamp.tasks.countdown import Countdown

SHOWN = 2
"""Samples of each method that are printed."""
END = 60
"""Last characters of a graded sample that are printed; the answer is there."""


def compare(
    run: CompareOptions,
    sampling: Sampling,
    prompt: str | None,
    input: Path | None,
    methods: list[str],
    page: Path | None,
    *,
    json: bool,
) -> None:
    """Run all methods on all prompts; print samples and the table, and write the page."""
    arms = _arms(methods)
    if page is not None:
        check_page(page)
    questions = _questions(prompt, input, run)
    graded = all(question.grade is not None for question in questions)
    if not graded:
        questions = [ComparedPrompt(question.prompt) for question in questions]
    scorer = None if graded else TextScorer.start()
    for sentence in scorer.missing if scorer is not None else ():
        message(f"note: {sentence}")
    hush(run.engine)
    total = run.n * len(arms) * len(questions)
    unit = first_words(questions[0].text, TITLE) if len(questions) == 1 else f"{len(questions)} prompts"
    with SampleBar(total, sampling.max_tokens, unit) as bar, _start(run, arms, page) as engine:
        bar.generating()
        results = comparison.compare(
            engine,
            questions,
            arms,
            n=run.n,
            sampling=sampling,
            seed=run.seed,
            scorer=scorer,
            strict=methods != ["all"],
            progress=bar.advance,
        )
        texts = tuple(question.text for question in questions)
        compared = Comparison(texts, run.n, sampling, tuple(results), graded=graded)
    if json:
        print_document(comparison_view.as_json(compared))
    else:
        _print(compared, scorer)
    if page is not None:
        command = f"esamp compare -n {run.n} --seed {run.seed} --methods {shlex.join(methods)}"
        write_page(page, render(comparison_view.page(compared, scorer, footer=footer(command))))
        message(f"all samples side by side: {page}")


def _questions(prompt: str | None, input: Path | None, run: CompareOptions) -> list[ComparedPrompt]:
    if (prompt is None) == (input is None):
        raise OptionError("give one prompt as an argument, or a file of prompts with --input FILE.jsonl")
    prompts = read_file(input) if input is not None else sources.from_texts([prompt or ""])
    return [_question(each) for each in templated(prompts, run)]


def _question(prompt: Prompt) -> ComparedPrompt:
    task = Countdown()
    item = task.item(last_text(prompt.content))
    return ComparedPrompt(prompt, None if item is None else partial(task.grade, item))


def _start(run: CompareOptions, arms: Sequence[ComparedArm], page: Path | None) -> Engine:
    """Start the engine. It measures every token if there will be a page.

    An engine that must know at its start which layers to keep gets the layers that the arms' options name. Layers that
    depend on the model's depth are not among them.
    """
    entry = engines.ENTRIES.get(run.engine)
    keeps, traces = (entry.keeps_layers, entry.traces) if entry is not None else (False, False)
    return run.start(sorted(set().union(*map(_layers, arms))) if keeps else (), trace=page is not None and traces)


def _layers(arm: ComparedArm) -> set[int]:
    method = registry.get(arm.method)
    try:
        return set(layers(method, method.options() if arm.options is None else arm.options))
    except OptionError:  # depends on the model's depth; if the method cannot run, the table gives the reason
        return set()


def _arms(given: Sequence[str]) -> list[ComparedArm]:
    names = [name for text in given for name in text.split()]
    if "all" in names:
        if names != ["all"]:
            raise OptionError("--methods all includes every method: leave the other names out")
        return comparison.all_arms()
    if not names:
        raise OptionError("--methods is empty: give all, or names that esamp methods lists")
    return [_arm(name) for name in names]


def _arm(text: str) -> ComparedArm:
    """The arm of a text like ``esamp:beta=1,signal=action``."""
    return comparison.named_arm(text, *method_text.read(text, "--methods"))


def _samples(result: PromptResult) -> tuple[str, list[str]]:
    """An arm's name and the samples to print. Of graded samples it is the end, and right ones come first."""
    texts = [] if result.completion is None else [sample.text for sample in result.completion.samples]
    if not result.grades:
        return result.arm.label, texts[:SHOWN]
    graded = sorted(zip(result.grades, texts, strict=True), key=lambda pair: not pair[0].correct)
    ends = [f"{'right' if grade.correct else 'wrong'}: {text.strip()[-END:]}" for grade, text in graded[:SHOWN]]
    right = sum(grade.correct for grade in result.grades)
    return f"{result.arm.label}: {right} of {len(texts)} right", ends


def _print(found: Comparison, scorer: TextScorer | None) -> None:
    """Print samples of the first prompt, then the table."""
    console = console_for(sys.stdout.isatty())
    print_text(console, f"> {cut_at_word(found.prompts[0], LONGEST_HEADING)}", "bold")
    for results in found.ran:
        console.print()
        print_samples(console, *_samples(results[0]))
    console.print()
    summary = comparison_view.table(found, scorer)
    print_table(console, summary)
    print_text(console, summary.note, "dim")
    if changes := comparison_view.differences(found):
        intervals = "; ".join(f"{label} {x.estimate:+.2f} [{x.low:+.2f}, {x.high:+.2f}]" for label, x in changes)
        console.print()
        print_text(console, f"Vendi against {found.ran[0][0].arm.label}, paired by prompt: {intervals}.")
    for result in found.refused:
        console.print()
        print_text(console, f"not run: {result.arm.label}: {result.refused}")
