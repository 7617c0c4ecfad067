"""The methods that `esamp bench` compares with plain sampling."""

from rich.table import Table

from esamp.bench.options import BenchOptions
from esamp.bench.throughput import Arm
from esamp.cli import method_text
from esamp.errors import OptionError
from esamp.explorer.config import ESampConfig
from esamp.methods import registry


def arms(run: BenchOptions, options: ESampConfig) -> list[Arm]:
    """The method of ``--method``, which has the `options` if it is esamp, then those of ``--against``.

    Raises:
        OptionError: there is no such method or option, it takes no part in decode steps, or it is given twice.
    """
    if run.method == "esamp":
        first = Arm("esamp", "esamp", options)
    else:
        if options.model_fields_set:
            given = min(options.model_fields_set)
            raise OptionError(
                f"option {given!r} is esamp's, and --method is {run.method!r}: write its own options as in "
                "--method override:heads=published"
            )
        first = _arm(run.method, "--method")
    found = [first, *(_arm(text, "--against") for text in run.against)]
    labels = [arm.label for arm in found]
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        raise OptionError(f"{twice} is given twice: leave --against out, or give it other options")
    return found


def table(*columns: str, gap: int = 2) -> Table:
    """A table without lines: names on the left, numbers on the right."""
    made = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0))
    for place, column in enumerate(columns):
        made.add_column(column, justify="left" if place == 0 else "right", no_wrap=place > 0)
    return made


def _arm(text: str, flag: str) -> Arm:
    method, given = method_text.read(text, flag)
    try:
        return Arm(text, method, registry.get(method).options.parse(given))
    except OptionError as error:
        raise OptionError(f"{flag} {text}: {error}") from None
