"""The methods that `esamp bench` compares with plain sampling."""

from esamp.bench.options import BenchOptions
from esamp.bench.throughput import BenchArm
from esamp.cli import method_text
from esamp.errors import OptionError
from esamp.explorer.config import ESampConfig
from esamp.methods import registry


def arms(run: BenchOptions, options: ESampConfig) -> list[BenchArm]:
    """The arm of ``--method`` and those of ``--against``.

    Args:
        run: the options of the benchmark.
        options: options of ESamp from the flags; they apply if ``--method`` is esamp.

    Raises:
        OptionError: a method or option does not exist, a method takes no part in decode steps, or is given twice.
    """
    if run.method == "esamp":
        first = BenchArm("esamp", "esamp", options)
    else:
        if options.model_fields_set:
            given = min(options.model_fields_set)
            raise OptionError(
                f"option {given!r} belongs to esamp, but --method is {run.method!r}: write the options of a method "
                "as in --method override:heads=published"
            )
        first = _arm(run.method, "--method")
    compared = [first, *(_arm(text, "--against") for text in run.against)]
    labels = [arm.label for arm in compared]
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        raise OptionError(f"{twice} is given twice: leave out --against, or give it other options")
    return compared


def _arm(text: str, flag: str) -> BenchArm:
    method, given = method_text.read(text, flag)
    try:
        return BenchArm(text, method, registry.get(method).options.parse(given))
    except OptionError as error:
        raise OptionError(f"{flag} {text}: {error}") from None
