"""Samples of one prompt on standard output, for people and for programs."""

import json
import math
import sys
from collections import Counter

from rich.text import Text

from esamp.cli.terminal import console
from esamp.engines.base import Completion, Content, Failure, Outcome, Sample
from esamp.quoting import cut_at_word, printable
from esamp.report.chat import message_texts
from esamp.runs.job import Job

LONGEST_HEADING = 240
"""Most characters of a prompt above its samples."""
COUNTED = {"rows_steered": "tokens steered", "updates": "updates", "resets": "resets"}
MEASURED = {"explained_variance": "explained variance", "kl": "KL"}


def print_json(job: Job, outcome: Outcome) -> None:
    """Print one line of ASCII."""
    print(json.dumps(job.record(outcome), allow_nan=False), flush=True)


def print_text(outcome: Outcome) -> None:
    """Print the prompt, the numbered samples and a summary, or the reason of a failure.

    Texts are wrapped on a terminal, and not wrapped on a pipe.
    """
    print_prompt(outcome.request.prompt)
    if isinstance(outcome, Failure):
        _show([("failed: ", str(outcome.error))], "")
        print(flush=True)
    else:
        _show([(f"[{sample.index + 1}] ", sample.text) for sample in outcome.samples], "")
        print_summary(outcome)


def print_prompt(prompt: Content) -> None:
    """Print a prompt as a heading, a long one by its first words."""
    _show([("> ", cut_at_word(text, LONGEST_HEADING)) for text in message_texts(prompt)], "bold")


def print_summary(completion: Completion) -> None:
    """Print a sentence on the samples, and an empty line."""
    _show([("", _summary(completion))], "dim")
    print(flush=True)


def _show(entries: list[tuple[str, str]], style: str) -> None:
    (_on_terminal if sys.stdout.isatty() else _on_pipe)(entries, style)


def _on_terminal(entries: list[tuple[str, str]], style: str) -> None:
    out = console()
    for label, text in entries:
        margin = Text(label, "bold cyan")
        for line in Text(_body(text), style).wrap(out, max(out.width - len(label), 1)):
            line.rstrip()
            out.print(margin + line, no_wrap=True, overflow="ignore", crop=False)
            margin = Text(" " * len(label))


def _on_pipe(entries: list[tuple[str, str]], style: str) -> None:
    for label, text in entries:
        print(label + _body(text).replace("\n", "\n" + " " * len(label)))


def _body(text: str) -> str:
    """The text without control characters and without empty lines around it."""
    return printable(text).strip("\n")


def _summary(completion: Completion) -> str:
    samples, telemetry = completion.samples, completion.telemetry
    parts = [
        f"{len(samples)} sample{'s' * (len(samples) != 1)}",
        f"{sum(len(sample.token_ids) for sample in samples)} tokens in {completion.seconds:.1f} s",
    ]
    if cut := sum(map(_is_cut, samples)):
        parts.append(f"{cut} cut off")
    parts += [
        f"{count} ended by {word}" for word, count in Counter(each.server_reason for each in samples).items() if word
    ]
    parts += [f"{telemetry[name]:.0f} {word}" for name, word in COUNTED.items() if name in telemetry]
    parts += [
        f"{word} {telemetry[name]:.2g}"
        for name, word in MEASURED.items()
        if name in telemetry and math.isfinite(telemetry[name])
    ]
    return ", ".join(parts)


def _is_cut(sample: Sample) -> bool:
    return sample.finish_reason == "length"
