"""`esamp methods`: the decoding methods and their options."""

from typing import Annotated

import typer

from esamp.cli.common_flags import AsJson


def command(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="show these methods in full; join methods by + for a combination", metavar="NAME", show_default=False
        ),
    ] = None,
    json: AsJson = False,
) -> None:
    """List the decoding methods, or show some in full: options, ranges, defaults, engines, citation.

    Examples:
    esamp methods
    esamp methods esamp xtc
    esamp methods esamp+fire --json
    """
    from esamp.cli import methods_run  # imports rich

    methods_run.methods(names or (), json=json)
