"""`esamp serve`: an OpenAI-compatible server whose requests can explore."""

from typing import Annotated

import typer

from esamp.cli.flags import FlagGroup, with_flags
from esamp.engines.vllm.settings import VLLMSettings
from esamp.errors import OptionError


@with_flags(settings=FlagGroup("Exploring", VLLMSettings))
def command(
    settings: VLLMSettings,
    context: typer.Context,
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            help="smollm2, a hub name or a folder; without a model, the embedded one; then flags of vllm serve",
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
    """Serve a model with vLLM so that requests can explore: vllm serve with the worker and scheduler of esamp.

    The model comes first. Every flag that is not listed below is passed to vLLM, such as --max-model-len 4096 or
    --tensor-parallel-size 2 (vllm serve --help=all lists them). If you give a vLLM flag that esamp also sets, your
    value is used.

    Requests with "vllm_xargs": {"method": "esamp"} in their body explore; all other requests run as in plain vLLM.
    GET /esamp returns the settings, GET /metrics the counters.

    Examples:
    esamp serve
    esamp serve Qwen/Qwen3-8B --slots 128 --max-model-len 8192 --port 8001
    """
    if "-h" in (arguments or []):
        print(context.get_help())
        return
    if json and not print_command:
        raise OptionError("--json works only together with --print-command")
    from esamp.cli import serve_run

    serve_run.serve(arguments or [], settings, print_command=print_command, json=json)
