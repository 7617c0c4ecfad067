"""Whether a model is a chat model, by the chat template of its tokenizer."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from esamp.errors import InputError
from esamp.models import AMATEUR, EMBEDDED, SMOLLM2, hub

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

KNOWN = {EMBEDDED: False, AMATEUR: False, SMOLLM2: True}
"""The answers for our own models, so that none of them is downloaded."""


@cache
def has_chat_template(model: str) -> bool:
    """`applies_template` for the tokenizer of a model.

    Args:
        model: one of `esamp.models.NAMES`, a folder, or a hub name, whose tokenizer is downloaded.

    Raises:
        InputError: the tokenizer cannot be loaded.
    """
    if model in KNOWN:
        return KNOWN[model]
    hub.check(model)  # before the imports, so that a wrong name is refused at once
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(model)
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise InputError(f"model {model!r} cannot be loaded: {first} -- {hub.remedy(model)}") from error
    return applies_template(tokenizer)


def applies_template(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether there is a chat template other than one that encodes a message like plain text."""
    if tokenizer.chat_template is None:
        return False
    from jinja2 import TemplateError

    try:
        turn = {"role": "user", "content": "a"}
        text = str(tokenizer.apply_chat_template([turn], add_generation_prompt=True, tokenize=False))
        return bool(tokenizer(text, add_special_tokens=False).input_ids != tokenizer("a").input_ids)
    except TemplateError:  # it refuses a single user message, so it does not encode it like plain text
        return True
