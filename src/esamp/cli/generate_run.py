"""What `esamp generate` runs and shows."""

import sys
from contextlib import nullcontext
from pathlib import Path

import typer

from esamp.cli import show
from esamp.cli.chat import applies_template
from esamp.cli.messages import message
from esamp.cli.terminal import Bar, hush
from esamp.engines.base import Engine, Failure
from esamp.errors import OptionError
from esamp.runs import job as jobs
from esamp.runs import prompts as sources
from esamp.runs.failures import Failures
from esamp.runs.job import Job
from esamp.runs.output import OutputFile
from esamp.runs.prompts import Prompt


def generate(job: Job, prompts: list[str], input: Path | None, output: Path | None, *, json: bool) -> None:
    """Generate what the output file does not have yet, and show it."""
    asked = _prompts(prompts, input)
    if applies_template(job.run):
        asked = sources.as_messages(asked)
    with OutputFile(output, job.settings()) if output else nullcontext() as file:
        if file is not None and file.torn:
            message(f"warning: the last line of {output} was cut off by an interruption, its prompt is done again")
        todo, failed = jobs.remaining(job, asked, file), jobs.failures(job, asked, file)
        before = len(asked) - len(todo) - len(failed.records)
        try:
            _generate(job, todo, file, failed, as_json=json)
        except KeyboardInterrupt:
            if file is not None:
                file.recover()
            done = 0 if file is None else sum(job.key(prompt) in file.done for prompt in asked)
            message(_interrupted(done, len(asked), output))
            raise typer.Exit(130) from None
    if output is not None:
        done = len(asked) - len(failed.records)
        message(f"{_prompt_count(done)} done in {output}, {before} of them before this run")
    failed.finish()


def _prompts(texts: list[str], input: Path | None) -> list[Prompt]:
    if texts and input is not None:
        raise OptionError("give prompts as arguments or by --input, not both")
    if input is not None:
        if str(input) == "-":
            return sources.parse_jsonl(sys.stdin.buffer, name="standard input")
        return sources.read_jsonl(input)
    if texts:
        return sources.from_texts(texts)
    if sys.stdin.isatty():
        raise OptionError("no prompt: give one as an argument, on standard input, or a file with --input FILE.jsonl")
    return sources.read_text(sys.stdin.buffer, name="standard input")


def _generate(job: Job, prompts: list[Prompt], file: OutputFile | None, failed: Failures, *, as_json: bool) -> None:
    with Bar(len(prompts) * job.run.n) as bar:

        def start() -> Engine:
            hush(job.run.engine)
            engine = job.run.start(job.layers())
            bar.generating()
            return engine

        for outcome in jobs.run(job, prompts, start, output=file, failed=failed, progress=bar.advance):
            if isinstance(outcome, Failure) and failed.total == 1 and file is None:
                raise outcome.error  # no batch, and nothing to continue
            if as_json or file is None:
                with bar.hidden():
                    show.as_json(job, outcome) if as_json else show.as_text(outcome)


def _interrupted(done: int, asked: int, output: Path | None) -> str:
    if output is None:
        return "interrupted; with --output FILE.jsonl a run can be continued"
    return f"interrupted; {done} of {_prompt_count(asked)} are in {output}: the same command continues it"


def _prompt_count(count: int) -> str:
    return f"{count} prompt{'s' * (count != 1)}"
