"""The ``esamp`` command.

Each command has two files. ``NAME.py`` declares its flags as a function `command` with Typer's annotations; it is
imported only if the command is called, and imports no large library, so that ``--help`` is fast. ``NAME_run.py`` does
the work. A new command also needs a line in `COMMANDS`.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Annotated, Any

import typer

import esamp
from esamp.cli import output
from esamp.cli.help import Command, CommandGroup
from esamp.cli.messages import message
from esamp.errors import EsampError, InputError, OptionError

COMMANDS: Mapping[str, str] = {
    "generate": "Generate samples for prompts, with ESamp or another method.",
    "compare": "Answer prompts with many methods and show the results side by side.",
    "methods": "List the decoding methods: options, ranges, defaults, engines, citations.",
    "study": "Run a grid of models, tasks and methods, and report it.",
    "judge": "Let chat models compare groups of samples without naming the methods.",
    "serve": "Serve a model with vLLM; each request can choose to explore.",
    "demo": "Show the effect of exploring on a small chat model.",
    "play": "Serve a web page with plain sampling and ESamp side by side.",
    "bench": "Measure the cost of methods and the diversity of their samples.",
    "doctor": "Show what is installed and what works on this machine.",
    "completions": "Print the tab completion of a shell.",
}
"""Name and summary of each command, in the order of the help page."""
PASS_THROUGH: Mapping[str, Mapping[str, Any]] = {
    "serve": {
        "ignore_unknown_options": True,
        "help_option_names": ["--help"],
    },  # vLLM has a flag -dph, which contains -h
}
"""Commands that pass unknown flags on to another program, with settings for the parser of their own flags."""
QUIET: Mapping[str, str] = {
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
    "VLLM_NO_USAGE_STATS": "1",
}
"""Environment variables for libraries, set before their import unless the user has set them."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    0: success; 1: a failure; 2: a wrong option or input; 130: an interruption; 141: the reader of standard output is
    gone, as of ``esamp ... | head``.

    Args:
        arguments: the command line without the program's name; by default that of this process.
    """
    words = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if sys.stdout is None or sys.stderr is None:  # started with >&-
        return 1 if sys.stderr is None else _closed()
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")  # read when the libraries are imported
    if not PASS_THROUGH.keys() & set(words):
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
    try:
        with output.checked(sys.stdout):
            return _run(words)
    except output.OutputError as error:
        if error.closed:
            return output.BROKEN_PIPE
        message(f"error: cannot write to standard output: {error}")
        return 1


def _closed() -> int:
    message("error: standard output is closed: > /dev/null drops it")
    return 1


def _run(words: list[str]) -> int:
    """Run the command and print its error, if any. Returns the exit code."""
    try:
        _call(words)
    except typer.Exit as exit:
        return exit.exit_code
    except EsampError as error:
        message(f"error: {error}")
        return 2 if isinstance(error, OptionError | InputError) else 1
    except typer.TyperException as error:
        message(f"error: {error.format_message().rstrip('.')} (--help lists the commands and options)")
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        message("interrupted")
        return 130
    return 0


def _call(arguments: list[str]) -> None:
    name = next((argument for argument in arguments if not argument.startswith("-")), None)
    command = typer.main.get_command(application(name))
    with command.make_context("esamp", arguments) as context:
        command.invoke(context)


def application(called: str | None) -> typer.Typer:
    """The application. Only the command that is called is imported; the others have just a name and a summary."""
    app = typer.Typer(
        help="Exploratory Sampling: steer the samples of a prompt toward what the model has not generated yet.",
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        cls=CommandGroup,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    )
    app.callback()(_options)
    for name, summary in COMMANDS.items():
        if name == called:
            settings = dict(PASS_THROUGH.get(name, {}))
            module = import_module(f"esamp.cli.{name}")
            if isinstance(module.command, typer.Typer):
                app.add_typer(module.command, name=name, short_help=summary)
            else:
                app.command(name, cls=Command, short_help=summary, context_settings=settings)(module.command)
        else:
            app.command(name, help=summary)(_not_loaded)
    return app


def _print_version(requested: bool) -> None:
    if requested:
        print(f"esamp {esamp.__version__}")
        raise typer.Exit


def _options(
    show_version: Annotated[
        bool, typer.Option("--version", help="print the version and exit", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Options before the command."""


def _not_loaded() -> None:
    """Placeholder for a command that is not called."""
