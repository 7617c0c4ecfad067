"""`esamp_frozen`: a distiller that never learns. Does it matter what the error is an error of?"""

from esamp.methods.esamp import ESamp
from esamp.methods.options import ESampFrozenConfig


class ESampFrozen(ESamp):
    """``h' = hL + beta (hL - f(h1))`` with f the published network at its initial weights, which is never trained.

    Where f(h1) is small compared with hL, this is temperature T / (1 + beta), as is the published method until its
    network has learned something. The distiller is the network, which has no gate, because an untrained `rls` or `mean`
    distiller has confidence 0 and would never steer. The only state per group is telemetry.
    """

    name = "esamp_frozen"
    summary = "esamp with a random network that never learns: the control for what is learned"
    citation = "a control of ours for Zeng et al. 2026, arXiv 2604.24927"
    options = ESampFrozenConfig
    frozen = True
