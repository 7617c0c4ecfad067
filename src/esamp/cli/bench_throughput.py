"""`esamp bench` and `esamp bench --count`: methods beside plain sampling, timed or counted, on a model."""

import json as encoder
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from esamp.bench import launches
from esamp.bench import throughput as timing
from esamp.bench.launches import Counts
from esamp.bench.limit import Limit, limit
from esamp.bench.machine import bytes_per_second, launch_seconds
from esamp.bench.minimum import Minimum, minimum
from esamp.bench.options import BenchOptions
from esamp.bench.throughput import Arm, Load, Subject, Throughput
from esamp.cli.bench_arms import table
from esamp.cli.terminal import Bar, console, hush
from esamp.engines import registry as engines
from esamp.errors import MissingDependencyError
from esamp.explorer.config import ESampConfig
from esamp.models import resolve
from esamp.models.shapes import write_shape

LONGEST_STEP = 100.0
"""Milliseconds of a step up to which a timed run is also counted, to say what limits it."""


@contextmanager
def _subject(run: BenchOptions, arms: Sequence[Arm]) -> Iterator[Subject]:
    """The model in its engine, freed at the end."""
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

            subject = VLLMSubject(source, load, arms, **where, dummy=run.shape is not None, full=run.full)
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


def throughput(run: BenchOptions, arms: Sequence[Arm], *, as_json: bool) -> None:
    """Time the arms, and say what limits them."""
    rows = run.prompts * run.n
    with _subject(run, arms) as subject:
        with Bar((run.pairs + 1) * (1 + len(arms)) * rows) as bar:
            bar.generating()

            def done(tokens: int) -> None:
                bar.advance(rows, tokens)

            result = timing.measure(subject, arms, rounds=run.pairs, on_run=done)
        limits = _limits(run, subject, arms, result)
    if as_json:
        said = {each.label: each.sentence() for each in limits}
        document = {"engine": run.engine, "model": run.shape or run.model, **result.as_dict(), "limits": said}
        print(encoder.dumps(document))
        return
    made = table("", "tok/s", "ms/step", "of off [95 %]")
    made.add_row("off", f"{result.rate():,.0f}", f"{result.step():.2f}")
    for arm in arms:
        ratio = result.ratio(arm.label)
        of_off = f"{ratio.estimate:.3f}" + (f" [{ratio.low:.3f}, {ratio.high:.3f}]" if run.pairs > 1 else "")
        made.add_row(arm.label, f"{result.rate(arm.label):,.0f}", f"{result.step(arm.label):.2f}", of_off)
    out = console()
    out.print(made)
    for sentence in (*_sentences(run, result), *(each.sentence() for each in limits)):
        out.print(sentence)


def counts(run: BenchOptions, arms: Sequence[Arm], *, as_json: bool) -> None:
    """Count what a step launches and moves, plainly and with each arm."""
    with _subject(run, arms) as subject:
        plain, found = _counted(subject, arms)
        least = {arm.label: _minimum(subject, arm) for arm in arms}
    if as_json:
        print(encoder.dumps(_document(run, plain, found, least)))
        return
    made = table("a decode step", "launches", "MB moved", "host waits", "allocations")
    made.add_row("off", *_cells(plain))
    for label, count in found.items():
        added = count.minus(plain)
        made.add_row(label, *_cells(count))
        made.add_row("  added", *_cells(added))
        if (known := least[label]) is not None:
            made.add_row("  minimum", "", f"{known.total / 1e6:,.3f}")
    out = console()
    out.print(made)
    out.print(f"{run.prompts} x {run.n} samples; {run.shape or run.model} on {run.engine}")
    for label, count in found.items():
        if (known := least[label]) is not None:
            added_bytes = count.bytes - plain.bytes
            out.print(
                f"{label}: {added_bytes / run.prompts / 1e6:,.3f} MB a slot, {added_bytes / known.total:.1f} x the "
                f"minimum of {known.total / run.prompts / 1e6:,.3f} MB"
            )


def _counted(subject: Subject, arms: Sequence[Arm]) -> tuple[Counts, dict[str, Counts]]:
    with Bar(3 * (1 + len(arms)), "counted runs") as bar:
        bar.generating()

        def done() -> None:
            bar.advance(1, 0)

        plain = launches.count(subject, None, on_run=done)
        return plain, {arm.label: launches.count(subject, arm, on_run=done) for arm in arms}


def _limits(run: BenchOptions, subject: Subject, arms: Sequence[Arm], result: Throughput) -> list[Limit]:
    """Counted as well where that takes seconds; kernels of a GPU engine's compiled model cannot be counted."""
    device = subject.states.device
    alike = [arm for arm in arms if result.on[arm.label][-1].steps == result.off[-1].steps]  # waves: fewer rows a step
    if result.step() > LONGEST_STEP or (run.engine == "vllm" and device != "cpu"):
        return [limit(result, arm.label) for arm in alike]
    plain, found = _counted(subject, alike)
    launch, rate = launch_seconds(device), bytes_per_second(device)
    return [limit(result, label, count.minus(plain), launch=launch, rate=rate) for label, count in found.items()]


def _minimum(subject: Subject, arm: Arm) -> Minimum | None:
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
