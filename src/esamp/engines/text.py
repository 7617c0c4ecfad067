"""Converts between text and token ids: encodes prompts, decodes samples and cuts them at stop texts."""

from collections.abc import Sequence
from dataclasses import dataclass

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from esamp.engines.base import Request, Sample
from esamp.engines.titles import title
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
    """whether the model or a stop text ended it, and not the limit"""


WINDOW = 6
"""Number of tokens before a piece of text that affect how it is decoded."""
STEP = 64
"""Limits that requests do not set are rounded down to a multiple of this, in tokens."""


def encode(tokenizer: PreTrainedTokenizerBase, request: Request) -> list[int]:
    """The token ids of a request's prompt.

    Raises:
        PromptError: the prompt is empty, or it is a chat and the model has no chat template or one that refuses it.
    """
    ids = _chat_ids(tokenizer, request) if not isinstance(request.prompt, str) else tokenizer(request.prompt).input_ids
    if not ids:
        raise PromptError(f"{title(request)}: the prompt is empty")
    return list(ids)


def sample_ids(tokenizer: PreTrainedTokenizerBase, sample: Sample) -> tuple[int, ...]:
    """The token ids of a sample, by encoding its text if it has none, as with samples of another model."""
    if sample.token_ids or not sample.text:
        return sample.token_ids
    return tuple(tokenizer(sample.text, add_special_tokens=False).input_ids)


def room(ids: Sequence[int], request: Request, context: int | None) -> int:
    """The most tokens to generate after a prompt: `max_tokens` of the request, or what fits into the context.

    In the second case the limit is rounded down, so that prompts of similar length have the same and can share a batch.

    Args:
        ids: of the prompt.
        request: the prompt's request.
        context: tokens that the model can read; None for any number.

    Raises:
        PromptError: the prompt does not fit into the context, or not together with `max_tokens`.
    """
    requested = request.sampling.max_tokens
    if context is None:
        return requested or DEFAULT_TOKENS
    left = context - len(ids)
    if left >= (requested or 1):
        return requested or min(left // STEP * STEP or left, DEFAULT_TOKENS)
    more = f" and max_tokens = {requested}" if requested else ""
    remedy = f"set max_tokens to at most {left}" if left > 0 else "shorten it"
    raise PromptError(
        f"{title(request)}: {len(ids)} prompt tokens{more} exceed the model's context of {context}: {remedy}"
    )


def _chat_ids(tokenizer: PreTrainedTokenizerBase, request: Request) -> list[int]:
    if tokenizer.chat_template is None:
        raise PromptError(f"{title(request)} is a chat, but this model has no chat template: give a plain prompt")
    turns = [dict(turn) for turn in request.prompt if not isinstance(turn, str)]
    try:
        text = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    except TemplateError as error:
        raise PromptError(f"{title(request)}: the model's chat template refuses the messages: {error}") from None
    return list(tokenizer(str(text), add_special_tokens=False).input_ids)


def end(
    tokenizer: PreTrainedTokenizerBase, prompt: Sequence[int], tokens: Sequence[int], request: Request, *, ended: bool
) -> Ending:
    """Cut a sample at its first stop text.

    Args:
        tokenizer: the model's.
        prompt: token ids of the prompt.
        tokens: generated token ids, without padding.
        request: has the stop texts.
        ended: whether the model ended the sample, by an end token or before the limit.
    """
    text, stops = decode(tokenizer, tokens, prompt), request.sampling.stop
    places = [place for stop in stops if (place := text.find(stop)) >= 0]
    if places:
        return Ending(tuple(_until_text(tokenizer, prompt, tokens, stops)), text[: min(places)], True)
    return Ending(tuple(tokens), text, ended)


def decode(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int], before: Sequence[int] = ()) -> str:
    """The text that `tokens` add to the tokens `before`, without special tokens.

    Decoders of SentencePiece models drop the space in front of the first token. So the last few tokens of `before` are
    decoded too, and their text is removed.
    """
    if not before:
        return tokenizer.batch_decode([list(tokens)], skip_special_tokens=True)[0]
    tail = list(before[-WINDOW:])
    start, text = tokenizer.batch_decode([tail, tail + list(tokens)], skip_special_tokens=True)
    return text[len(start) :] if text.startswith(start) else decode(tokenizer, tokens)


def pieces(tokenizer: PreTrainedTokenizerBase, prompt: Sequence[int], tokens: Sequence[int]) -> tuple[str, ...]:
    """The text that each token adds to those before it, decoded within a window of neighbours."""
    ids, length, added = [*prompt[-WINDOW:], *tokens], len(prompt[-WINDOW:]), []
    for place in range(length, len(ids)):
        start = max(0, place - WINDOW)
        before = decode(tokenizer, ids[start:place])
        after = decode(tokenizer, ids[start : place + 1])
        added.append(after.removeprefix(before) if after.startswith(before) else after[len(before) :])
    return tuple(added)


def line_breaks(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """The tokens whose text contains a line break."""
    texts = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
    return tuple(token for token, text in enumerate(texts) if "\n" in text)


def _until_text(
    tokenizer: PreTrainedTokenizerBase, prompt: Sequence[int], tokens: Sequence[int], stops: Sequence[str]
) -> Sequence[int]:
    """The shortest prefix of `tokens` whose text contains one of `stops`."""
    low, high = 1, len(tokens)
    while low < high:
        middle = (low + high) // 2
        text = decode(tokenizer, tokens[:middle], prompt)
        low, high = (low, middle) if any(stop in text for stop in stops) else (middle + 1, high)
    return tokens[:low]
