"""`Vanilla`: ordinary sampling with the engine's own temperature and filters, the baseline of all comparisons."""

from esamp.methods.base import Method
from esamp.options import Options


class VanillaOptions(Options):
    """Ordinary sampling has no options except those of the sampler."""


class Vanilla(Method):
    """Changes nothing."""

    name = "vanilla"
    summary = "ordinary sampling: temperature, top-k, top-p, min-p"
    citation = "none"
    options = VanillaOptions
