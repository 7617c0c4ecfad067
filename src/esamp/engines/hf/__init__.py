"""The transformers engine: `explore` around one's own generate call, `HFEngine` for requests."""

from esamp.engines.hf.endings import EndingsWarning
from esamp.engines.hf.engine import HFEngine
from esamp.engines.hf.explore import InactiveMethodWarning, explore
from esamp.engines.hf.observed import GroupingWarning
from esamp.engines.hf.run import Run
from esamp.engines.hf.traces import Trace

__all__ = [
    "EndingsWarning",
    "GroupingWarning",
    "HFEngine",
    "InactiveMethodWarning",
    "Run",
    "Trace",
    "explore",
]
