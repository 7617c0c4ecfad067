"""Runs code that nobody has read, in processes that cannot reach anything, and says whether it passes its tests."""

from esamp.sandbox.check import Result, Verdict, check
from esamp.sandbox.isolation import ESSENTIAL, FURTHER, Isolation, available
from esamp.sandbox.limits import Limits

__all__ = ["ESSENTIAL", "FURTHER", "Isolation", "Limits", "Result", "Verdict", "available", "check"]
