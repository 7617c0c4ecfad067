"""Between texts and token ids: prompts in, samples out."""

from collections.abc import Sequence
from dataclasses import dataclass

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from esamp.engines.base import Request, Sample
from esamp.errors import PromptError
from esamp.sampling import DEFAULT_TOKENS


@dataclass(frozen=True)
class Ending:
    """A sample's tokens and text, cut where it ends."""

    tokens: tuple[int, ...]
    """with the end-of-sequence token, or the tokens that complete a stop text"""
    text: str
    """without special tokens, up to the stop text"""
    stopped: bool
    """whether it ended by itself, not at the limit"""


WINDOW = 6
"""Tokens before a piece of text that decide how it begins."""
STEP = 64
"""The room that a prompt leaves in the context is rounded down to a multiple of this, in tokens."""


def encode(tokenizer: PreTrainedTokenizerBase, request: Request) -> list[int]:
    """The token ids of a request's prompt.

    Raises:
        PromptError: the prompt is empty, or is a chat and the model has no template or one that refuses it.
    """
    ids = _chat_ids(tokenizer, request) if not isinstance(request.prompt, str) else tokenizer(request.prompt).input_ids
    if not ids:
        raise PromptError(f"request {request.id!r}: the prompt is empty")
    return list(ids)


def sample_ids(tokenizer: PreTrainedTokenizerBase, sample: Sample) -> tuple[int, ...]:
    """The token ids of a sample. Its text is encoded if it has none, as with samples of another model."""
    if sample.token_ids or not sample.text:
        return sample.token_ids
    return tuple(tokenizer(sample.text, add_special_tokens=False).input_ids)


def room(ids: Sequence[int], request: Request, context: int | None) -> int:
    """How many tokens to generate at most behind the prompt `ids`, in a model of `context` tokens (None: any number).

    Without a limit of the request's own it is rounded down, so that prompts of about one length can share a batch.

    Raises:
        PromptError: the prompt does not fit, or not with as many tokens as the request asks for.
    """
    wanted = request.sampling.max_tokens
    if context is None:
        return wanted or DEFAULT_TOKENS
    left = context - len(ids)
    if left >= (wanted or 1):
        return wanted or min(left // STEP * STEP or left, DEFAULT_TOKENS)
    more = f" and max_tokens = {wanted}" if wanted else ""
    remedy = f"set max_tokens to at most {left}" if left > 0 else "shorten it"
    raise PromptError(
        f"request {request.id!r}: {len(ids)} prompt tokens{more} exceed the model's context of {context}: {remedy}"
    )


def _chat_ids(tokenizer: PreTrainedTokenizerBase, request: Request) -> list[int]:
    if tokenizer.chat_template is None:
        raise PromptError(f"request {request.id!r} is a chat, but this model has no chat template: give a plain prompt")
    turns = [dict(turn) for turn in request.prompt if not isinstance(turn, str)]
    try:
        text = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    except TemplateError as error:
        raise PromptError(f"request {request.id!r}: the model's chat template refuses the messages: {error}") from None
    return list(tokenizer(str(text), add_special_tokens=False).input_ids)


def end(
    tokenizer: PreTrainedTokenizerBase, prompt: Sequence[int], tokens: Sequence[int], request: Request, *, ended: bool
) -> Ending:
    """Cut a sample at its first stop text.

    Args:
        tokenizer: the model's.
        prompt: what the sample continues.
        tokens: what was generated, nothing of the padding behind.
        request: names the stop texts.
        ended: whether the model ended the text, by its own token or short of the limit.
    """
    text, stops = decode(tokenizer, tokens, prompt), request.sampling.stop
    found = [place for stop in stops if (place := text.find(stop)) >= 0]
    if found:
        return Ending(tuple(_until_text(tokenizer, prompt, tokens, stops)), text[: min(found)], True)
    return Ending(tuple(tokens), text, ended)


def decode(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int], before: Sequence[int] = ()) -> str:
    """The text that `tokens` add to the tokens `before`, without special tokens.

    Decoders of SentencePiece models drop the space in front of the first token. So the last few tokens before are
    decoded as well, and their text is taken off.
    """
    if not before:
        return tokenizer.batch_decode([list(tokens)], skip_special_tokens=True)[0]
    tail = list(before[-WINDOW:])
    start, whole = tokenizer.batch_decode([tail, tail + list(tokens)], skip_special_tokens=True)
    return whole[len(start) :] if whole.startswith(start) else decode(tokenizer, tokens)


def pieces(tokenizer: PreTrainedTokenizerBase, prompt: Sequence[int], tokens: Sequence[int]) -> tuple[str, ...]:
    """The text that each token adds to those before it, found within a window of neighbours."""
    every, length, added = [*prompt[-WINDOW:], *tokens], len(prompt[-WINDOW:]), []
    for place in range(length, len(every)):
        start = max(0, place - WINDOW)
        before = decode(tokenizer, every[start:place])
        after = decode(tokenizer, every[start : place + 1])
        added.append(after.removeprefix(before) if after.startswith(before) else after[len(before) :])
    return tuple(added)


def line_breaks(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """The tokens whose text has a line break in it."""
    texts = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
    return tuple(token for token, text in enumerate(texts) if "\n" in text)


def _until_text(
    tokenizer: PreTrainedTokenizerBase, prompt: Sequence[int], tokens: Sequence[int], stops: Sequence[str]
) -> Sequence[int]:
    """The shortest prefix of `tokens` whose text holds one of `stops`."""
    low, high = 1, len(tokens)
    while low < high:
        middle = (low + high) // 2
        text = decode(tokenizer, tokens[:middle], prompt)
        low, high = (low, middle) if any(stop in text for stop in stops) else (middle + 1, high)
    return tokens[:low]
