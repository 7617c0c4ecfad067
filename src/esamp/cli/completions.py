"""`esamp completions`: tab completion of commands, flags and names of methods, for the user's shell."""

from typing import Annotated, Literal

import typer


def command(
    shell: Annotated[
        Literal["bash", "zsh", "fish"], typer.Argument(help="bash, zsh or fish", metavar="SHELL", show_default=False)
    ],
    words: Annotated[
        list[str] | None, typer.Argument(help="words to complete, as the script passes them", metavar="WORD")
    ] = None,
) -> None:
    """Print the tab completion of a shell: commands, flags, and the names of methods.

    Examples:
    esamp completions bash > esamp.bash
    esamp completions fish > esamp.fish
    """
    from esamp.cli import completions_run

    if words:
        for candidate in completions_run.candidates(words):
            print(candidate)
    else:
        print(completions_run.SCRIPTS[shell])
