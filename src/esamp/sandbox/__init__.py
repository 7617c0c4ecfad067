"""Runs untrusted code in isolated processes, and returns whether it passes its tests."""

from esamp.sandbox.check import Result, Verdict, check
from esamp.sandbox.isolation import ESSENTIAL, FURTHER, MEANING, WITHOUT, Isolation, available
from esamp.sandbox.limits import Limits

__all__ = [
    "ESSENTIAL",
    "FURTHER",
    "MEANING",
    "WITHOUT",
    "Isolation",
    "Limits",
    "Result",
    "Verdict",
    "available",
    "check",
]
