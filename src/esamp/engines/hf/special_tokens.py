"""What a model and its tokenizer say about themselves: padding token, end tokens, length of the context."""

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from esamp.engines.hf.prompt_batch import token_list


def end_tokens(model: PreTrainedModel) -> list[int]:
    """The tokens that end a sample."""
    return token_list(model.generation_config.eos_token_id)


def padding_token(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that fills up rows: the tokenizer's, the model's, or else an end token."""
    pad = tokenizer.pad_token_id
    if pad is None:
        pad = model.generation_config.pad_token_id
    return pad if pad is not None else (end_tokens(model) or [0])[0]


def context_size(model: PreTrainedModel) -> int | None:
    """Tokens that prompt and sample may have together; None for models without such a limit."""
    try:
        return int(model.config.get_text_config(decoder=True).max_position_embeddings)
    except AttributeError:
        return None
