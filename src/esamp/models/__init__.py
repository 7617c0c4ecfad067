"""The model that ships with the package: it plays the Countdown numbers game, thinking aloud."""

from __future__ import annotations

from pathlib import Path

EMBEDDED = "countdown"


def embedded_path() -> Path:
    """The folder of the embedded model, as `AutoModelForCausalLM.from_pretrained` takes it."""
    return Path(__file__).parent / EMBEDDED
