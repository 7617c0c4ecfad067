"""`OverRIDEOptions`, and the memory that heads with these options take. Imports no torch."""

from typing import Literal

from pydantic import Field

from esamp.options import Options

NUMBER_BYTES = {"float32": 4, "float64": 8, "bfloat16": 2}


class OverRIDEOptions(Options):
    """Options of OverRIDE. The defaults are those of the public code for Qwen models."""

    heads: Literal["prompt", "published"] = "prompt"
    """'prompt': each prompt has its own heads, and its samples start round by round; 'published': all prompts share one
    set of heads, which is never reset, and all samples start at once"""
    rounds: int = Field(default=10, ge=2, le=4096)
    """rounds in which a prompt's samples start; 'published': samples with this index or a higher one are not changed"""
    head_strength: float = Field(default=0.8, ge=0, le=1000)
    """lambda: weight with which a head's output is subtracted from the logits; 0 learns and changes nothing"""
    head_rank: int = Field(default=16, ge=1, le=4096)
    """rank of a head"""
    head_lr: float = Field(default=1e-3, gt=0, le=10)
    """Adam's learning rate"""
    head_dtype: Literal["float32", "float64", "bfloat16"] = "float32"
    """storage type of heads and Adam's moments"""
    head_seed: int = Field(default=0, ge=0, lt=2**63)
    """seed of the heads' initial weights"""


def head_bytes(options: OverRIDEOptions, hidden_size: int, vocabulary: int, slots: int) -> int:
    """Bytes of heads, moments and initial weights for `slots` groups.

    With ``heads = "prompt"``, each group has two heads and Adam's two moments of one, ``rank (d + V)`` numbers each.
    With "published", all groups share ``rounds - 1`` heads and their moments.
    """
    number = NUMBER_BYTES[options.head_dtype]
    own = options.heads == "prompt"
    count = 4 if own else 3 * (options.rounds - 1)
    counters = max(number, 4) * (1 if own else options.rounds - 1) + 2 * 8
    state = number * count * options.head_rank * (hidden_size + vocabulary) + counters
    initial = number * (options.rounds - 1) * options.head_rank * hidden_size
    return state * (slots if own else 1) + initial
