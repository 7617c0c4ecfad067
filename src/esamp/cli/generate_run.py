"""The work of `esamp generate`."""

import sys
from contextlib import nullcontext
from pathlib import Path

import typer

from esamp.cli import sample_text
from esamp.cli.messages import counted, message, warn_torn
from esamp.cli.progress import TITLE, SampleBar
from esamp.cli.prompts import read_file, templated
from esamp.cli.streaming import StreamedSample
from esamp.cli.terminal import hush
from esamp.engines.base import Completion, Engine, Failure
from esamp.engines.titles import last_text
from esamp.errors import OptionError
from esamp.quoting import first_words
from esamp.runs import job as jobs
from esamp.runs import prompts as sources
from esamp.runs.failures import Failures
from esamp.runs.job import Job
from esamp.runs.output import OutputFile
from esamp.runs.prompts import Prompt


def generate(job: Job, texts: list[str], input: Path | None, output: Path | None, *, json: bool) -> None:
    """Generate what the output file does not contain yet, and print it."""
    prompts = templated(_prompts(texts, input), job.run)
    with OutputFile(output, job.settings()) if output else nullcontext() as file:
        if output is not None and file is not None and file.torn:
            warn_torn(output, "its prompt is done again")
        remaining, failed = jobs.remaining(job, prompts, file), jobs.failures(job, prompts, file)
        done_before = len(prompts) - len(remaining) - len(failed.records)
        try:
            _generate(job, remaining, file, failed, as_json=json)
        except KeyboardInterrupt:
            if file is not None:
                file.recover()
            done = 0 if file is None else sum(job.key(prompt) in file.done for prompt in prompts)
            message(_interrupted(done, len(prompts), output))
            raise typer.Exit(130) from None
    if output is not None:
        done = len(prompts) - len(failed.records)
        message(f"{counted(done, 'prompt')} done in {output}, {done_before} of them before this run")
    failed.finish()


def _prompts(texts: list[str], input: Path | None) -> list[Prompt]:
    if texts and input is not None:
        raise OptionError("give prompts as arguments or by --input, not both")
    if input is not None:
        return read_file(input)
    if texts:
        return sources.from_texts(texts)
    if sys.stdin.isatty():
        raise OptionError("no prompt: give one as an argument, on standard input, or a file with --input FILE.jsonl")
    return sources.read_text(sys.stdin.buffer, name="standard input")


def _generate(job: Job, prompts: list[Prompt], file: OutputFile | None, failed: Failures, *, as_json: bool) -> None:
    unit = first_words(last_text(prompts[0].content), TITLE) if len(prompts) == 1 else f"{len(prompts)} prompts"
    with SampleBar(len(prompts) * job.run.n, job.sampling.max_tokens, unit) as bar:

        def start() -> Engine:
            hush(job.run.engine)
            engine = job.run.start(job.layers())
            bar.generating()
            return engine

        streams = len(prompts) == job.run.n == 1 and sys.stdout.isatty() and not as_json and file is None
        streamed = StreamedSample(prompts[0].content, bar.stop) if streams else None
        on_text = None if streamed is None else streamed.add
        outcomes = jobs.run(job, prompts, start, output=file, failed=failed, progress=bar.advance, on_text=on_text)
        try:
            for outcome in outcomes:
                if isinstance(outcome, Failure) and failed.total == 1 and file is None:
                    raise outcome.error  # the only prompt, and no file to continue
                if streamed is not None and streamed.open and isinstance(outcome, Completion):
                    streamed.finish(outcome)
                elif as_json or file is None:
                    with bar.hidden():
                        sample_text.print_json(job, outcome) if as_json else sample_text.print_text(outcome)
        finally:
            if streamed is not None and streamed.open:  # interrupted
                streamed.end()


def _interrupted(done: int, total: int, output: Path | None) -> str:
    if output is None:
        return "interrupted; with --output FILE.jsonl a run can be continued"
    return f"interrupted; {done} of {counted(total, 'prompt')} are in {output}: the same command continues it"
