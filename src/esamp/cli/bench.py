"""`esamp bench`: what methods cost, and what they bring in diversity."""

from typing import Annotated

import typer

from esamp.bench.options import BenchOptions, What
from esamp.cli.flags import FlagGroup, with_flags
from esamp.explorer.config import ESampConfig


@with_flags(
    run=FlagGroup("Measurement", BenchOptions),
    options=FlagGroup("Options of esamp", {"esamp": ESampConfig}, choose=lambda _: "esamp", kind="method"),
)
def command(
    run: BenchOptions,
    options: ESampConfig,
    what: Annotated[
        What,
        typer.Argument(help="cost in tokens a second, diversity against perplexity, or the cost over sizes"),
    ] = "throughput",
    json: Annotated[bool, typer.Option("--json", help="print one JSON document", show_default=False)] = False,
) -> None:
    """Measure what a method costs (throughput, scaling) or what it brings (diversity).

    throughput: the same decoding on and off in interleaved pairs of equal length; fails if nothing was explored. With
    --count, what a decode step launches and moves instead, which does not depend on the machine.
    diversity: Vendi Score, cosine, perplexity and entropy of vanilla over temperatures, of ESamp as published and of
    ours; the options given on the command line add an arm of their own.
    scaling: one decode step of the method alone, over groups and samples, sizes of states, and slots.

    Examples: esamp bench; esamp bench --count --distiller mean; esamp bench --against override:heads=published;
    esamp bench scaling --preset paper --out figures
    """
    run.check(what)
    # torch and the engines are imported only now, so that --help need not wait for them
    if what == "diversity":
        from esamp.cli.bench_diversity import diversity

        diversity(run, options, as_json=json)
        return
    from esamp.cli import bench_arms

    arms = bench_arms.arms(run, options)
    if what == "scaling":
        from esamp.cli.bench_scaling import scaling

        scaling(run, arms[0], as_json=json)
        return
    from esamp.cli.bench_throughput import counts, throughput

    (counts if run.count else throughput)(run, arms, as_json=json)
