"""Whether a command's prompts go through the model's chat template, said on standard error."""

from esamp.cli.messages import message
from esamp.runs.job import ModelOptions


def applies_template(run: ModelOptions) -> bool:
    """Whether texts become a user's messages. Says so where the model decided it and not a flag."""
    chat = run.chats()
    if chat and run.chat is None:
        message(f"prompts go through the chat template of {run.model}; --raw passes them as they are")
    return chat
