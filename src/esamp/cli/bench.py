"""`esamp bench`: the cost of methods, and the diversity of their samples."""

from typing import Annotated

import typer

from esamp.bench.options import Benchmark, BenchOptions
from esamp.cli.common_flags import AsJson
from esamp.cli.flags import FlagGroup, with_flags
from esamp.explorer.config import ESampConfig


@with_flags(
    run=FlagGroup("Measurement", BenchOptions),
    options=FlagGroup(
        "Options of esamp",
        {"esamp": ESampConfig},
        choose=lambda _: "esamp",
        kind="method",
        hint="NAME is esamp; options of other methods are written as in --method override:heads=published",
        by_method=True,
    ),
)
def command(
    run: BenchOptions,
    options: ESampConfig,
    what: Annotated[
        Benchmark,
        typer.Argument(help="what to measure: throughput, diversity or scaling", metavar="MEASUREMENT"),
    ] = "throughput",
    json: AsJson = False,
) -> None:
    """Measure the cost of a method (throughput, scaling) or the diversity of its samples.

    throughput: time the same decoding with and without the method, in interleaved runs of equal length. With --count,
    count the launches and bytes of a decode step instead, which do not depend on the machine. The command fails if the
    method did not act.

    diversity: measure Vendi Score, cosine similarity, perplexity and entropy of vanilla sampling over temperatures, of
    ESamp as published, and of ESamp with its default options. Options on the command line add one more arm.

    scaling: time one decode step of the method alone, over groups and samples, sizes of the states, and slots.

    Examples:
    esamp bench --tokens 16 --pairs 2
    esamp bench --count --distiller mean
    esamp bench --tokens 16 --pairs 2 --against override:heads=published
    esamp bench scaling --preset paper --out figures
    """
    run.check(what)
    # torch and the engines are imported only now, so that --help is fast
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
