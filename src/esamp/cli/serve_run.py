"""The work of `esamp serve`."""

import os
import shlex
import sys
from collections.abc import Sequence

from esamp.cli.documents import print_document
from esamp.cli.messages import message
from esamp.engines.vllm.server.command import serve_command, version_warning, vllm_arguments
from esamp.engines.vllm.settings import VLLMSettings
from esamp.models import NAMES


def serve(arguments: Sequence[str], settings: VLLMSettings, *, print_command: bool, json: bool) -> None:
    """Replace this process by vLLM's server, or print its command."""
    command = serve_command(vllm_arguments(arguments, settings))
    if print_command:
        print_document({"command": command}) if json else print(shlex.join(command))
        return
    if arguments and not arguments[0].startswith("-") and arguments[0] not in NAMES:
        from esamp.models import hub  # imports the hub's library

        hub.check(arguments[0])
    if warning := version_warning():
        message(f"warning: {warning}")
    sys.stdout.flush()
    os.execv(command[0], command)
