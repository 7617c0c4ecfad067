"""`MinP`: min-p sampling, set in the engine's own sampler. Imports no torch."""

from pydantic import Field

from esamp.errors import OptionError
from esamp.methods.base import Method
from esamp.options import Options, narrowed
from esamp.sampling import Sampling


class MinPOptions(Options):
    """Options of min-p."""

    p_base: float = Field(default=0.1, gt=0, le=1)
    """keep tokens with at least this share of the top token's probability"""


class MinP(Method):
    """Keeps token v if ``p_v >= p_base * max_u p_u``, with ``p`` `[R, V]` the softmax of the logits at temperature.

    Both engines implement it in their own sampler as ``min_p``, after temperature. This method only sets it, so that it
    can be named, listed and compared like other methods. At temperature 0 it has no effect.
    Source: Nguyen et al. 2025, arXiv 2407.01082.
    """

    name = "min_p"
    summary = "keep tokens with at least a share of the top token's probability"
    citation = (
        "Nguyen et al. 2025, Turning Up the Heat: Min-p Sampling for Creative and Coherent LLM Outputs, 2407.01082"
    )
    options = MinPOptions

    @classmethod
    def sampler(cls, options: Options, sampling: Sampling) -> Sampling:
        """The request's settings, with the threshold as ``min_p``.

        Raises:
            OptionError: the request sets another ``min_p``.
        """
        p_base = narrowed(options, MinPOptions).p_base
        if sampling.min_p not in (0, p_base):
            raise OptionError(
                f"min_p = {sampling.min_p} and p_base = {p_base} are one setting with two values: leave min_p out"
            )
        return sampling.replace(min_p=p_base)
