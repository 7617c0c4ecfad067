"""The work of `esamp play`."""

import secrets
import sys
from importlib.util import find_spec

from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from esamp.cli.demo_run import demo_dtype
from esamp.cli.messages import message
from esamp.cli.play import PlayOptions
from esamp.cli.terminal import console, hush
from esamp.errors import MissingDependencyError, OptionError
from esamp.extras import install_command
from esamp.play.program import Origin

TOKEN_BYTES = 24


def play(options: PlayOptions) -> None:
    """Load the source of samples and the measures, print the address, and serve until Ctrl-C."""
    origin = _origin(options)
    if find_spec("gradio") is None:
        raise MissingDependencyError(f"esamp play needs gradio: {install_command('play')}")
    from esamp.analysis.text_scores import TextScorer  # torch
    from esamp.play import server, sources
    from esamp.play.playground import Playground

    with server.listen(options.host, options.port) as listening:
        hush("openai" if options.endpoint else "hf")
        with _spinner() as progress:
            task = progress.add_task(f"loading {options.endpoint or options.model}")
            source = sources.ServerSource(origin) if options.endpoint else sources.LocalModel(origin)
            progress.update(task, description="loading the measures of texts")
            scorer = TextScorer.start()
        for sentence in scorer.missing:
            message(f"note: {sentence}")
        local = server.is_local(options.host)
        token = None if local else secrets.token_urlsafe(TOKEN_BYTES)
        print(server.address(listening, options.host, token), flush=True)
        message("serving; Ctrl-C ends it")
        server.serve(Playground(source, scorer), listening, token=token, local=local)


def _origin(options: PlayOptions) -> Origin:
    """Where samples come from.

    Raises:
        OptionError: a device or a dtype together with a server, which decides on them itself.
    """
    given = options.model_fields_set
    if not options.endpoint:
        dtype = options.dtype if "dtype" in given else demo_dtype(options.model)
        return Origin(options.model, options.device, dtype, chat=options.chat)
    for name in ("device", "dtype"):
        if name in given:
            raise OptionError(f"--{name} belongs to a model in this process: leave it out with --endpoint")
    model = options.model if "model" in given else None
    return Origin(model, endpoint=options.endpoint, chat=options.chat)


def _spinner() -> Progress:
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    return Progress(*columns, console=console(stderr=True), transient=True, disable=not sys.stderr.isatty())
