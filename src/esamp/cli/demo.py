"""`esamp demo`: the effect of exploring, on a chat model or on the Countdown numbers game."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from esamp.cli.common_flags import AsJson
from esamp.cli.pages import check_page
from esamp.errors import OptionError
from esamp.models import EMBEDDED, SMOLLM2

OPEN_TOKENS, COUNTDOWN_TOKENS = 96, 480
PROBLEMS, SHOWN = 5, 5


def command(
    task: Annotated[
        Literal["open", "countdown"],
        typer.Option(help="open: three open-ended prompts on a chat model; countdown: the numbers game"),
    ] = "open",
    samples: Annotated[
        int, typer.Option("-n", "--samples", min=2, max=1024, help="samples of each prompt", metavar="N")
    ] = 16,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            min=16,
            help=f"most tokens of a sample (default: {OPEN_TOKENS}, countdown {COUNTDOWN_TOKENS})",
            show_default=False,
            metavar="N",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="seed of the sampler", metavar="N")] = 0,
    model: Annotated[
        str | None,
        typer.Option(
            help=f"a name, hub name or folder (default: {SMOLLM2}; countdown needs a model trained on it)",
            show_default=False,
            metavar="MODEL",
        ),
    ] = None,
    problems: Annotated[
        int | None,
        typer.Option(
            min=2, max=300, help=f"countdown: held-out problems (default: {PROBLEMS})", show_default=False, metavar="N"
        ),
    ] = None,
    shown: Annotated[
        int | None,
        typer.Option(
            min=1, help=f"countdown: problems on the page (default: {SHOWN})", show_default=False, metavar="N"
        ),
    ] = None,
    page: Annotated[Path, typer.Option(help="HTML page to write", metavar="FILE")] = Path("demo.html"),
    json: AsJson = False,
) -> None:
    """Show what exploring does: the same prompts with plain sampling, top-p and ESamp, all samples on an HTML page.

    Three prompts on a small chat model take two to three minutes on two cores. The command prints a table with the
    diversity of each method and the measures of quality that exploring should not lower. Below it are the first
    samples, unselected, of ESamp and of plain sampling at the nearest perplexity.

    Examples:
    esamp demo
    esamp demo --task countdown --problems 2 --max-tokens 64
    """
    check_page(page)
    for name, value in (("--problems", problems), ("--shown", shown)):
        if task == "open" and value is not None:
            raise OptionError(f"{name} belongs to --task countdown: leave it out, or add --task countdown")
    from esamp.cli import demo_run  # imports torch

    if task == "countdown":
        sizes = (problems or PROBLEMS, samples, max_tokens or COUNTDOWN_TOKENS, seed)
        demo_run.countdown(*sizes, model=model or EMBEDDED, shown=shown or SHOWN, page=page, json=json)
        return
    demo_run.open_ended(samples, max_tokens or OPEN_TOKENS, seed, model=model or SMOLLM2, page=page, json=json)
