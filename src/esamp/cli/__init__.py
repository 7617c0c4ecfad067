"""The `esamp` command: one file a command, each imported only when it is called.

A new command is a line in `COMMANDS` and a file of that name whose function `command` has Typer's annotations.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Annotated, Any

import typer

import esamp
from esamp.cli.help import Command, Group
from esamp.cli.messages import message
from esamp.errors import EsampError, InputError, OptionError

COMMANDS: Mapping[str, str] = {
    "generate": "Sample answers to prompts, explored by ESamp.",
    "compare": "Answer prompts with many methods and put them side by side.",
    "methods": "List the decoding methods: options, ranges, defaults, engines, citations.",
    "study": "Run a grid of models, tasks and methods, and report it.",
    "judge": "Let chat models compare groups of samples without knowing which method wrote which.",
    "serve": "Serve a model with vLLM, with exploring as an option of each request.",
    "demo": "Show what exploring does, on a small chat model.",
    "bench": "Measure what exploring costs and what it brings.",
    "doctor": "Say what is installed and what works on this machine.",
}
"""Name and summary of each command, in the order of the help page."""
PASSING: Mapping[str, Mapping[str, Any]] = {
    "serve": {"ignore_unknown_options": True, "help_option_names": ["--help"]},  # -h is in vLLM's -dph
}
"""Commands that hand flags which are not theirs to another program, and how their flags are read therefore."""
QUIET: Mapping[str, str] = {
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
    "VLLM_NO_USAGE_STATS": "1",
}
"""What libraries are told before they are imported, unless the user's environment says otherwise."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    0 is success, also when the reader of a pipe went away; 1 a failure; 2 a wrong option or input; 130 an interruption.
    """
    given = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")  # read when the libraries under us are imported
    if not PASSING.keys() & set(given):
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
    try:
        _call(given)
        sys.stdout.flush()
    except typer.Exit as exit:
        return exit.exit_code
    except EsampError as error:
        message(f"error: {error}")
        return 2 if isinstance(error, OptionError | InputError) else 1
    except typer.TyperException as error:
        message(f"error: {error.format_message().rstrip('.')} (--help lists what there is)")
        return error.exit_code
    except BrokenPipeError:
        # Nobody reads on. What is still buffered must not fail again when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (KeyboardInterrupt, typer.Abort):
        message("interrupted")
        return 130
    return 0


def _call(arguments: list[str]) -> None:
    asked = next((argument for argument in arguments if not argument.startswith("-")), None)
    command = typer.main.get_command(_app(asked))
    with command.make_context("esamp", arguments) as context:
        command.invoke(context)


def _app(asked: str | None) -> typer.Typer:
    """The application with one real command, the one that is called; of the others it knows name and summary."""
    app = typer.Typer(
        help="Exploratory Sampling: steer the samples of one prompt toward what the model has not said yet.",
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        cls=Group,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    )
    app.callback()(_options)
    for name, summary in COMMANDS.items():
        if name == asked:
            settings = dict(PASSING.get(name, {}))
            module = import_module(f"esamp.cli.{name}")
            if isinstance(module.command, typer.Typer):
                app.add_typer(module.command, name=name, short_help=summary)
            else:
                app.command(name, cls=Command, short_help=summary, context_settings=settings)(module.command)
        else:
            app.command(name, help=summary)(_not_loaded)
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"esamp {esamp.__version__}")
        raise typer.Exit


def _options(
    show_version: Annotated[
        bool, typer.Option("--version", help="print the version and exit", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Options before the command."""


def _not_loaded() -> None:
    """Stands for a command that was not called."""
