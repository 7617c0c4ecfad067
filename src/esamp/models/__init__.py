"""Models by name: two that are part of the package, and a chat model that is downloaded on first use."""

from __future__ import annotations

from pathlib import Path

EMBEDDED = "countdown"
AMATEUR = "countdown_amateur"
SMOLLM2 = "smollm2"
NAMES = (EMBEDDED, AMATEUR, SMOLLM2)
"""The names that `resolve` maps to folders."""


def embedded_path() -> Path:
    """The folder of the embedded model, for `AutoModelForCausalLM.from_pretrained`."""
    return Path(__file__).parent / EMBEDDED


def embedded_amateur_path() -> Path:
    """The folder of the embedded amateur, a much smaller model with the same tokenizer, for contrastive decoding."""
    return Path(__file__).parent / AMATEUR


def resolve(name: str | Path) -> str | Path:
    """The folder of one of the models in `NAMES`; any other name (a folder, a hub name) is returned unchanged.

    ``smollm2`` is downloaded or converted on first use and read from the user's cache from then on; see
    `esamp.models.smollm2`. A local folder that has one of these names is written ``./smollm2``.

    Raises:
        EsampError: smollm2 is not in the cache and cannot be downloaded or converted. The message says what to do.
    """
    if name == EMBEDDED:
        return embedded_path()
    if name == AMATEUR:
        return embedded_amateur_path()
    if name == SMOLLM2:
        from esamp.models import smollm2

        return smollm2.folder()
    return name
