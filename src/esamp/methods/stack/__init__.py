"""Stacks: several methods, joined by ``+`` in a request, that act as one."""

from esamp.methods.stack.combine import combine
from esamp.methods.stack.stack import SamplerStack, Stack

__all__ = ["SamplerStack", "Stack", "combine"]
