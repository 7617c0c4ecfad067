"""A tiny random chat model, whose texts are noise, and a chat to give to it."""

from pathlib import Path

from transformers import PreTrainedTokenizerFast

from esamp.engines.hf import HFEngine
from support.hf_models import small, small_tokenizer

CHAT = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Name a tree."})
TEMPLATE = "{% for turn in messages %}{{ turn.role }}: {{ turn.content }}|{% endfor %}assistant: "


def chat_tokenizer() -> PreTrainedTokenizerFast:
    """One token per character, and a chat template."""
    tokenizer = small_tokenizer()
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def chat_engine() -> HFEngine:
    """The model, with a context of 2048 tokens, in the transformers engine."""
    return HFEngine(small("llama", max_position_embeddings=2048), chat_tokenizer())


def save_chat_model(folder: Path) -> Path:
    """Write the model, with a context of 256 tokens, and its tokenizer to a folder."""
    chat_tokenizer().save_pretrained(folder)
    small("llama").save_pretrained(folder)
    return folder
