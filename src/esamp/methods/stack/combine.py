"""`combine`: several method classes as one."""

from collections.abc import Sequence

from esamp.methods.base import DecodeMethod, Method
from esamp.methods.stack.parts import Parts
from esamp.methods.stack.stack import SamplerStack, Stack


def combine(methods: Sequence[type[Method]]) -> type[Method]:
    """One method that does what all `methods` do, with the options of all of them.

    A filter or a draw becomes a `DecodeMethod` even if it is alone, so that engines only run `DecodeMethod`s.

    Raises:
        OptionError: the methods do not go together.
    """
    parts = Parts(tuple(methods))
    if len(methods) == 1 and (parts.inner or not parts.acts):
        return methods[0]
    parts.check()
    return _stack(parts) if parts.acts else _sampler_stack(parts)


def _stack(combined: Parts) -> type[DecodeMethod]:
    class Combination(Stack):
        name, summary, citation = combined.name, combined.summary, combined.citation
        options, kind, needs = combined.options, combined.kind, combined.needs
        first_token, one_request = combined.first_token, combined.one_request
        parts = combined

    return Combination


def _sampler_stack(combined: Parts) -> type[Method]:
    class SamplerCombination(SamplerStack):
        name, summary, citation = combined.name, combined.summary, combined.citation
        options, kind, needs = combined.options, combined.kind, combined.needs
        parts = combined

    return SamplerCombination
