"""`Penalties`: presence, frequency and repetition penalties, set in the engine's own sampler. Imports no torch."""

from pydantic import Field

from esamp.errors import OptionError
from esamp.methods.base import Method
from esamp.options import Options, narrowed
from esamp.sampling import Sampling

NEUTRAL = {"presence": 0.0, "frequency": 0.0, "repetition": 1.0}
"""The value of each penalty that has no effect."""


class PenaltyOptions(Options):
    """Options of the penalties. A neutral value leaves the request's own setting unchanged."""

    penalty_presence: float = Field(default=0.5, ge=-2, le=2)
    """subtract this from the logits of tokens already generated"""
    penalty_frequency: float = Field(default=0.0, ge=-2, le=2)
    """subtract this from a token's logit for each time it was generated"""
    penalty_repetition: float = Field(default=1.0, gt=0, le=10)
    """divide positive logits of tokens already in the text, prompt included, by this, and multiply negative ones"""


class Penalties(Method):
    """Lowers the logits of tokens that the text already contains.

    With ``c_v`` the number of times that token v was generated in this sample (only `repetition` counts the prompt)::

        l_v <- l_v / repetition  if l_v > 0 else  l_v * repetition      where v is in the prompt or c_v > 0
        l_v <- l_v - frequency * c_v - presence * [c_v > 0]

    on logits `[R, V]` before temperature. The engines' settings are ``repetition_penalty``, ``frequency_penalty`` and
    ``presence_penalty``, which have no effect by default. As a baseline needs a penalty with an effect, presence is 0.5
    here, within the range of 0.1 to 1 that the OpenAI API's documentation calls reasonable. It does not grow with the
    text, unlike a frequency penalty, which in long texts suppresses even spaces and digits, and it does not penalise
    the words of the prompt, unlike a repetition penalty. Penalties depend on one sample only, not on the group's other
    samples. Sources: the OpenAI API for presence and frequency; Keskar et al. 2019, arXiv 1909.05858, for repetition.
    """

    name = "penalties"
    summary = "presence, frequency and repetition penalties, each sample by itself"
    citation = "OpenAI API (presence, frequency); Keskar et al. 2019, CTRL, arXiv 1909.05858 (repetition)"
    options = PenaltyOptions

    @classmethod
    def sampler(cls, options: Options, sampling: Sampling) -> Sampling:
        """The request's settings, with the penalties that are not neutral.

        Raises:
            OptionError: the request sets another value of one of these penalties.
        """
        own, requested = dict(narrowed(options, PenaltyOptions)), dict(sampling)
        changes: dict[str, float] = {}
        for kind, neutral in NEUTRAL.items():
            value, other = own[f"penalty_{kind}"], requested[f"{kind}_penalty"]
            if value == neutral:
                continue
            if other not in (neutral, value):
                raise OptionError(
                    f"{kind}_penalty = {other} and penalty_{kind} = {value} are one setting with two values: "
                    f"leave {kind}_penalty out"
                )
            changes[f"{kind}_penalty"] = value
        return sampling.replace(**changes)
