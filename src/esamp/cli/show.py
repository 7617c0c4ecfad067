"""Completions for people and for programs."""

import json
import math
import sys
from collections import Counter

from rich.text import Text

from esamp.cli.terminal import console
from esamp.engines.base import Completion, Failure, Outcome, Sample
from esamp.quoting import printable
from esamp.runs.job import Job

COUNTED = {"rows_steered": "tokens steered", "updates": "updates", "resets": "resets"}
MEASURED = {"explained_variance": "explained variance", "kl": "KL"}


def as_json(job: Job, outcome: Outcome) -> None:
    """One line of ASCII on standard output."""
    print(json.dumps(job.record(outcome), allow_nan=False), flush=True)


def as_text(outcome: Outcome) -> None:
    """The prompt, the numbered samples and what the method did, or why there are none.

    Wrapped on a terminal, unwrapped on a pipe.
    """
    prompt = outcome.request.prompt
    turns = [prompt] if isinstance(prompt, str) else [f"{turn['role']}: {turn['content']}" for turn in prompt]
    show = _on_terminal if sys.stdout.isatty() else _on_pipe
    show([("> ", turn) for turn in turns], "bold")
    if isinstance(outcome, Failure):
        show([("failed: ", str(outcome.error))], "")
    else:
        show([(f"[{sample.index + 1}] ", sample.text) for sample in outcome.samples], "")
        show([("", _summary(outcome))], "dim")
    print(flush=True)


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
    """Without what could control the terminal, and without the empty lines around it."""
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
