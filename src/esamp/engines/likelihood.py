"""`Likelihood`: the result of `Engine.score`."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Likelihood:
    """The likelihood of one sample under a model at temperature 1. NaN: no tokens, or the value was not computed."""

    total: float = math.nan
    """sum of the tokens' log-probabilities, in nats"""
    mean: float = math.nan
    """log-probability per token, in nats"""
    certainty: float = math.nan
    """mean over the tokens of ``KL(uniform || model)``, in nats"""
    entropy: float = math.nan
    """mean over the tokens of the entropy of the model's distribution, in nats"""
    tokens: int = 0
    """number of the sample's tokens in the model's own vocabulary"""
