"""Presence, frequency and repetition penalties, set in the engine's own sampler: what a user would try first."""

from pydantic import Field

from esamp.errors import OptionError
from esamp.methods.base import Method
from esamp.options import Options, narrowed
from esamp.sampling import Sampling

NEUTRAL = {"presence": 0.0, "frequency": 0.0, "repetition": 1.0}
"""What each of them is where it does nothing."""


class PenaltyOptions(Options):
    """Options of the penalties. One that does nothing leaves the request's own setting as it is."""

    penalty_presence: float = Field(0.5, ge=-2, le=2)
    """subtract this from the logits of tokens already generated"""
    penalty_frequency: float = Field(0.0, ge=-2, le=2)
    """subtract this from a token's logit for each time it was generated"""
    penalty_repetition: float = Field(1.0, gt=0, le=10)
    """divide positive logits of tokens already in the text, prompt included, by this, and multiply negative ones"""


class Penalties(Method):
    """Lowers the logits of tokens that the text already has.

    With ``c_v`` the times that token v was generated in this sample, and the prompt counted in for `repetition` alone::

        l_v <- l_v / repetition  if l_v > 0 else  l_v * repetition      where v is in the prompt or c_v > 0
        l_v <- l_v - frequency * c_v - presence * [c_v > 0]

    on logits `[R, V]` before temperature. Engines know them as ``repetition_penalty``, ``frequency_penalty`` and
    ``presence_penalty``, all of which do nothing by default. A rival that does nothing is none, so here presence is
    0.5, amid the 0.1 to 1 that the OpenAI API's documentation calls reasonable. It is the one that does not grow with
    the text: a frequency penalty ends by forbidding what every long text repeats, spaces and digits among them, and a
    repetition penalty punishes the prompt's own words. They look at one sample at a time and know nothing of the
    group's others. Sources: the OpenAI API for presence and frequency; Keskar et al. 2019, arXiv 1909.05858, for
    repetition.
    """

    name = "penalties"
    summary = "presence, frequency and repetition penalties, each sample by itself"
    citation = "OpenAI API (presence, frequency); Keskar et al. 2019, CTRL, arXiv 1909.05858 (repetition)"
    options = PenaltyOptions

    @classmethod
    def sampler(cls, options: Options, sampling: Sampling) -> Sampling:
        """With the penalties that are to do something.

        Raises:
            OptionError: the request asks for another value of one of them itself.
        """
        wanted, given = dict(narrowed(options, PenaltyOptions)), dict(sampling)
        changes: dict[str, float] = {}
        for kind, neutral in NEUTRAL.items():
            value, own = wanted[f"penalty_{kind}"], given[f"{kind}_penalty"]
            if value == neutral:
                continue
            if own not in (neutral, value):
                raise OptionError(
                    f"{kind}_penalty = {own} and penalty_{kind} = {value} are one setting with two values: "
                    f"leave {kind}_penalty out"
                )
            changes[f"{kind}_penalty"] = value
        return sampling.replace(**changes)
