"""`esamp_frozen`: a distiller that never learns. Does it matter what the error is an error of?"""

from esamp.methods.esamp import ESamp
from esamp.methods.options import ESampFrozenConfig


class ESampFrozen(ESamp):
    """``h' = hL + beta (hL - f(h1))`` with f the published network as it was drawn, which is never trained.

    Where f(h1) is small beside hL this is temperature T / (1 + beta), and so is the published method for as long as its
    network has learned little. A frozen `rls` or `mean` distiller would predict nothing and trust itself in nothing,
    i.e. never steer: hence the network, which has no gate. Nothing is kept per group but telemetry.
    """

    name = "esamp_frozen"
    summary = "esamp with a random network that never learns: the control for what is learned"
    citation = "a control of ours for Zeng et al. 2026, arXiv 2604.24927"
    options = ESampFrozenConfig
    frozen = True
