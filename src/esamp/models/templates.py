"""Whether a model is a chat model, as its tokenizer tells."""

from functools import cache

from jinja2 import TemplateError
from transformers import AutoTokenizer

from esamp.errors import InputError
from esamp.models import AMATEUR, EMBEDDED, SMOLLM2, hub

KNOWN = {EMBEDDED: False, AMATEUR: False, SMOLLM2: True}
"""Of our own models, so that nothing is fetched to know it."""


@cache
def has_chat_template(model: str) -> bool:
    """Whether the model has a chat template. One that returns a message unchanged counts as none.

    Args:
        model: a name of ours, a folder, or a hub name, whose tokenizer is downloaded.

    Raises:
        InputError: the tokenizer cannot be loaded.
    """
    if model in KNOWN:
        return KNOWN[model]
    hub.check(model)
    try:
        tokenizer = AutoTokenizer.from_pretrained(model)
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise InputError(f"the tokenizer of {model!r} cannot be loaded: {first} -- {hub.remedy(model)}") from error
    if tokenizer.chat_template is None:
        return False
    try:
        turn = {"role": "user", "content": "x"}
        return str(tokenizer.apply_chat_template([turn], add_generation_prompt=True, tokenize=False)) != "x"
    except TemplateError:  # it wants other messages than one user's, so it does something
        return True
