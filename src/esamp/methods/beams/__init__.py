"""Beam search: methods that decode the samples of a prompt as hypotheses that compete for places."""

from esamp.methods.beams.base import NOWHERE, BeamMethod, Beams, Ends, Hypotheses

__all__ = ["NOWHERE", "BeamMethod", "Beams", "Ends", "Hypotheses"]
