"""`Likelihood`: how probable given tokens are under an engine's model, as `Engine.score` reports it."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Likelihood:
    """Of one sample under the model at temperature 1. NaN if the sample has no tokens or the value was not measured."""

    total: float = math.nan
    """sum of the tokens' log-probabilities, in nats"""
    mean: float = math.nan
    """log-probability per token, in nats"""
    certainty: float = math.nan
    """mean over the tokens of KL(uniform || model), in nats"""
    entropy: float = math.nan
    """mean over the tokens of the entropy of the model's distribution, in nats"""
    tokens: int = 0
    """number of the sample's tokens in the model's own vocabulary"""
