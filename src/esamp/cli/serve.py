"""`esamp serve`: an OpenAI-compatible server whose requests can explore."""

import json as encoder
import os
import shlex
import sys
from typing import Annotated

import typer

from esamp.cli.flags import FlagGroup, with_flags
from esamp.cli.messages import message
from esamp.engines.vllm.server.command import serve_command, version_warning, vllm_arguments
from esamp.engines.vllm.settings import VLLMSettings
from esamp.errors import OptionError
from esamp.models import NAMES


@with_flags(settings=FlagGroup("Exploring", VLLMSettings))
def command(
    settings: VLLMSettings,
    context: typer.Context,
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            help="smollm2, hub name or folder, the embedded model without one; then any flag of `vllm serve`",
            metavar="MODEL|VLLM_FLAG",
            show_default=False,
        ),
    ] = None,
    print_command: Annotated[
        bool, typer.Option("--print-command", help="print the vLLM command instead of running it", show_default=False)
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", help="with --print-command: print one JSON document", show_default=False)
    ] = False,
) -> None:
    """Serve a model with vLLM so that requests can explore: vllm serve with our worker, scheduler and middleware.

    The model comes first. Every flag that is not listed below goes to vLLM as it is: --max-model-len 4096,
    --tensor-parallel-size 2, ... (vllm serve --help=all lists them). A flag of vLLM's that you give wins over ours.

    Requests explore with "vllm_xargs": {"method": "esamp"} in their body; others are as without us. GET /esamp says
    what is on, GET /metrics counts.

    Examples: esamp serve; esamp serve Qwen/Qwen3-8B --slots 128 --max-model-len 8192 --port 8001
    """
    given = arguments or []
    if "-h" in given:
        print(context.get_help())
        return
    if json and not print_command:
        raise OptionError("--json goes with --print-command: a server prints no document")
    vllm = serve_command(vllm_arguments(given, settings))
    if print_command:
        print(encoder.dumps({"command": vllm}) if json else shlex.join(vllm))
        return
    if given and not given[0].startswith("-") and given[0] not in NAMES:
        from esamp.models import hub  # imports the hub's library

        hub.check(given[0])
    if warning := version_warning():
        message(f"warning: {warning}")
    sys.stdout.flush()
    os.execv(vllm[0], vllm)
