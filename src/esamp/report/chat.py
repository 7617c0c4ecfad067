"""Prompts as readers see them: each message of a chat with its role."""

from collections.abc import Mapping, Sequence


def message_texts(prompt: str | Sequence[Mapping[str, str]]) -> list[str]:
    """A plain prompt itself, or each message of a chat as ``role: content``."""
    return [prompt] if isinstance(prompt, str) else [f"{turn['role']}: {turn['content']}" for turn in prompt]
