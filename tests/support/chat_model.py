"""A tiny random chat model, for commands whose words and files are tested and not what a model says."""

from pathlib import Path

from support.hf_models import small, small_tokenizer

TEMPLATE = "{% for turn in messages %}[{{ turn['role'] }}] {{ turn['content'] }}{% endfor %} [assistant] "


def save_chat_model(folder: Path) -> Path:
    """One token per character, 256 of them at most; writes noise."""
    tokenizer = small_tokenizer()
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    small("llama").save_pretrained(folder)
    return folder
