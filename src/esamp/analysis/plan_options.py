"""`PlanOptions`: the options of `esamp study plan`."""

from pydantic import Field

from esamp.options import Options


class PlanOptions(Options):
    """The difference to detect, the test, and the assumptions without a pilot."""

    measure: str = "pass@1"
    """one of the report's measures"""
    difference: float | None = Field(default=None, gt=0)
    """difference that matters, in the measure's units (0.05 = 5 points); 0.05 for measures in percent"""
    power: float = Field(default=0.8, ge=0.05, le=0.99)
    """wanted chance of detecting that difference if it exists"""
    alpha: float = Field(default=0.05, ge=0.001, le=0.5)
    """level of the test, after Holm's correction"""
    simulations: int = Field(default=1000, ge=100, le=100_000)
    """simulated studies per estimate of power"""
    difficulty: float = Field(default=0.3, gt=0, lt=1)
    """without a pilot: mean probability that a sample is right"""
    concentration: float = Field(default=1.0, gt=0, le=1000)
    """without a pilot: a + b of the Beta distribution of that probability over problems; small is all or nothing"""
    effect_spread: float = Field(default=0.1, ge=0, le=1)
    """without a pilot: standard deviation of a method's effect on that probability over problems"""
