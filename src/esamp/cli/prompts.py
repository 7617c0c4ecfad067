"""The prompts of a command: where they come from, and whether they go through the model's chat template."""

import sys
from collections.abc import Sequence
from pathlib import Path

from esamp.cli.messages import message
from esamp.runs import prompts as sources
from esamp.runs.job import ModelOptions
from esamp.runs.prompts import Prompt


def read_file(path: Path) -> list[Prompt]:
    """The prompts of a JSONL file; ``-`` is standard input."""
    if str(path) == "-":
        return sources.parse_jsonl(sys.stdin.buffer, name="standard input")
    return sources.read_jsonl(path)


def templated(prompts: Sequence[Prompt], options: ModelOptions) -> list[Prompt]:
    """The prompts as a user's messages if they go through a chat template, else unchanged.

    Prints a message if the model decided this, and not a flag.
    """
    if not options.chats():
        return list(prompts)
    if options.chat is None:
        message(f"prompts go through the chat template of {options.model}; --raw passes them as they are")
    return sources.as_messages(prompts)
