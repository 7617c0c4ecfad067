"""The work of `esamp bench throughput`, also with ``--count``: methods beside plain sampling on a model."""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from esamp.bench import launches
from esamp.bench import throughput as timing
from esamp.bench.cost import CostBreakdown, cost_breakdown
from esamp.bench.launches import Counts
from esamp.bench.machine import bytes_per_second, launch_seconds
from esamp.bench.minimum import Minimum, minimum
from esamp.bench.options import BenchOptions
from esamp.bench.throughput import BenchArm, Load, Subject, Throughput
from esamp.cli.documents import print_document
from esamp.cli.progress import SampleBar
from esamp.cli.terminal import console, hush, plain_table
from esamp.engines import registry as engines
from esamp.errors import MissingDependencyError
from esamp.explorer.config import ESampConfig
from esamp.models import resolve
from esamp.models.shapes import write_shape

LONGEST_STEP = 100.0
"""Milliseconds: if a step takes longer, its launches and bytes are not counted after the timing."""


@contextmanager
def _subject(run: BenchOptions, arms: Sequence[BenchArm]) -> Iterator[Subject]:
    """The model in its engine; it is freed at the end."""
    works, detail = engines.ENTRIES[run.engine].state()
    if not works:
        raise MissingDependencyError(f"engine {run.engine!r}: {detail}")
    load = Load(run.prompts, run.n, tokens=run.timed_tokens)
    with TemporaryDirectory() as folder:
        source = write_shape(run.shape, Path(folder)) if run.shape else resolve(run.model)
        where = dict(device=run.device, dtype=run.dtype)
        subject: Subject
        if run.engine == "vllm":
            hush("vllm")
            from esamp.bench.throughput_vllm import VLLMSubject

            subject = VLLMSubject(
                source, load, arms, **where, dummy=run.shape is not None, full=run.full, capture=run.capture
            )
        else:
            from esamp.bench.throughput_hf import HFSubject
            from esamp.engines.hf.loading import load_model, random_model

            if run.shape:
                subject = HFSubject(random_model(Path(folder), **where), load, full=run.full)
            else:
                model, tokenizer = load_model(source, **where)
                subject = HFSubject(model, load, tokenizer=tokenizer, full=run.full)
        with closing(subject):
            yield subject


def throughput(run: BenchOptions, arms: Sequence[BenchArm], *, as_json: bool) -> None:
    """Time the arms, and print what their costs consist of."""
    rows = run.prompts * run.n
    with _subject(run, arms) as subject:
        with SampleBar((run.pairs + 1) * (1 + len(arms)) * rows) as bar:
            bar.generating()

            def done(tokens: int) -> None:
                bar.advance(rows, tokens)

            result = timing.measure(subject, arms, rounds=run.pairs, on_run=done)
        costs = _costs(run, subject, arms, result)
    if as_json:
        sentences = {each.label: each.sentence() for each in costs}
        document = {"engine": run.engine, "model": run.shape or run.model, **result.as_dict(), "limits": sentences}
        print_document(document)
        return
    table = plain_table(("", "tok/s", "ms/step", "of off [95 %]"))
    table.add_row("off", f"{result.rate():,.0f}", f"{result.step():.2f}")
    for arm in arms:
        ratio = result.ratio(arm.label)
        of_off = f"{ratio.estimate:.3f}" + (f" [{ratio.low:.3f}, {ratio.high:.3f}]" if run.pairs > 1 else "")
        table.add_row(arm.label, f"{result.rate(arm.label):,.0f}", f"{result.step(arm.label):.2f}", of_off)
    out = console()
    out.print(table)
    for sentence in (*_sentences(run, result), *(each.sentence() for each in costs)):
        out.print(sentence)


def counts(run: BenchOptions, arms: Sequence[BenchArm], *, as_json: bool) -> None:
    """Print the launches and bytes of a decode step, plainly and with each arm."""
    with _subject(run, arms) as subject:
        plain, found = _counted(subject, arms)
        least = {arm.label: _minimum(subject, arm) for arm in arms}
    if as_json:
        print_document(_document(run, plain, found, least))
        return
    table = plain_table(("a decode step", "launches", "MB moved", "host waits", "allocations"))
    table.add_row("off", *_cells(plain))
    for label, count in found.items():
        added = count.minus(plain)
        table.add_row(label, *_cells(count))
        table.add_row("  added", *_cells(added))
        if (known := least[label]) is not None:
            table.add_row("  minimum", "", f"{known.total / 1e6:,.3f}")
    out = console()
    out.print(table)
    out.print(f"{run.prompts} x {run.n} samples; {run.shape or run.model} on {run.engine}")
    for label, count in found.items():
        if (known := least[label]) is not None:
            added_bytes = count.bytes - plain.bytes
            out.print(
                f"{label}: {added_bytes / run.prompts / 1e6:,.3f} MB a slot, {added_bytes / known.total:.1f} x the "
                f"minimum of {known.total / run.prompts / 1e6:,.3f} MB"
            )


def _counted(subject: Subject, arms: Sequence[BenchArm]) -> tuple[Counts, dict[str, Counts]]:
    with SampleBar(3 * (1 + len(arms)), unit="counted runs") as bar:
        bar.generating()

        def done() -> None:
            bar.advance(1, 0)

        plain = launches.count(subject, None, on_run=done)
        return plain, {arm.label: launches.count(subject, arm, on_run=done) for arm in arms}


def _costs(run: BenchOptions, subject: Subject, arms: Sequence[BenchArm], result: Throughput) -> list[CostBreakdown]:
    """The costs of the arms, split by counts where counting takes only seconds.

    Arms with waves are left out: their steps have fewer rows. The kernels of a compiled model on a GPU cannot be
    counted.
    """
    device = subject.states.device
    comparable = [arm for arm in arms if result.on[arm.label][-1].steps == result.off[-1].steps]
    if result.step() > LONGEST_STEP or (run.engine == "vllm" and device != "cpu"):
        return [cost_breakdown(result, arm.label) for arm in comparable]
    plain, found = _counted(subject, comparable)
    launch, rate = launch_seconds(device, plain.bytes), bytes_per_second(device)
    return [
        cost_breakdown(result, label, count.minus(plain), launch=launch, rate=rate) for label, count in found.items()
    ]


def _minimum(subject: Subject, arm: BenchArm) -> Minimum | None:
    if arm.method != "esamp" or not isinstance(arm.options, ESampConfig):
        return None
    load, states, config = subject.load, subject.states, arm.options
    waves = len(arm.decoding.waves(config, load.samples))
    groups = 1 if config.scope == "batch" else load.prompts
    return minimum(config, rows=load.rows / waves, groups=groups, size=states.size, number=states.number_bytes)


def _cells(counts: Counts) -> tuple[str, ...]:
    return f"{counts.launches:.0f}", f"{counts.bytes / 1e6:,.3f}", f"{counts.waits:.0f}", f"{counts.allocations:.0f}"


def _document(
    run: BenchOptions, plain: Counts, found: dict[str, Counts], least: dict[str, Minimum | None]
) -> dict[str, Any]:
    arms = []
    for label, count in found.items():
        known = least[label]
        arms.append(
            {
                "arm": label,
                **count.as_dict(),
                "added": count.minus(plain).as_dict(),
                "minimum_bytes": None if known is None else known.total,
            }
        )
    place = {"engine": run.engine, "model": run.shape or run.model, "prompts": run.prompts, "samples": run.n}
    return {**place, "off": plain.as_dict(), "arms": arms}


def _sentences(run: BenchOptions, result: Throughput) -> Iterator[str]:
    load, labels = result.load, list(result.on)
    rounds = "pairs" if len(labels) == 1 else f"rounds of {1 + len(labels)}"
    yield (
        f"{run.pairs} interleaved {rounds} of {load.prompts} x {load.samples} samples x {load.tokens} tokens; "
        f"{run.shape or run.model} on {run.engine}"
    )
    for other in labels[1:]:
        ratio = result.ratio(labels[0], over=other)
        yield f"{labels[0]}/{other} {ratio.estimate:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]"
    for label in labels:
        last = result.on[label][-1]
        steered, updates = last.telemetry.get("rows_steered", 0), last.telemetry.get("updates", 0)
        if split := result.split(label):
            parts = ", ".join(f"{name} {milliseconds:.2f}" for name, milliseconds in split.items())
            share = 100 * (1 - split["engine"] / sum(split.values()))
            yield f"{label}, ms of a step: {parts}; {share:.1f} % of it is the method's"
        waves = last.steps // load.tokens
        later = f" in {waves} waves, which take {waves} times the steps" if waves > 1 else ""
        yield (
            f"{label}: bank {last.bank_bytes / 1e6:.2f} MB, buffers {last.buffer_bytes / 1e6:.2f} MB; {steered:.0f} "
            f"tokens steered, {updates:.0f} updates a run{later}"
        )
