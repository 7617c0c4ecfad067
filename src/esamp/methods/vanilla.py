"""Ordinary sampling: temperature and filters as the engine has them. The baseline of every comparison."""

from esamp.methods.base import Method
from esamp.options import Options


class VanillaOptions(Options):
    """Ordinary sampling has no options beside the sampler's."""


class Vanilla(Method):
    """Leaves the engine alone."""

    name = "vanilla"
    summary = "ordinary sampling: temperature, top-k, top-p, min-p"
    citation = "none"
    options = VanillaOptions
