"""How the arms of a study look: the baseline black, vanilla at other settings grey, what is compared in colour."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from esamp.study.config import Study

Role: TypeAlias = Literal["vanilla", "other", "baseline"]

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Okabe and Ito's palette, which colour-blind people can tell apart, without its yellow."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "*")
LINES = ("-", "--", "-.", ":")
BASELINE, VANILLA = "#1a1a1a", "#8a8a8a"


@dataclass(frozen=True)
class Look:
    """Of one arm, in all figures."""

    role: Role
    colour: str
    marker: str
    line: str


def looks(study: Study, arms: Iterable[str]) -> dict[str, Look]:
    """One for each arm; what is coloured never looks the same.

    A few coloured arms have a colour each; of many, those of one method share it. Where a study compares vanilla with
    nothing but itself, its settings are what is coloured.
    """
    methods = {arm.label: arm.method for arm in study.arms}
    names = [arm for arm in arms if arm != study.baseline]
    others = [arm for arm in names if methods.get(arm) != "vanilla"] or names
    found = {study.baseline: Look("baseline", BASELINE, "o", "-")}
    found |= {arm: Look("vanilla", VANILLA, "o", "-") for arm in names}
    colours: dict[str, str] = {}
    used: Counter[str] = Counter()
    for place, arm in enumerate(others):
        family = arm if len(others) <= len(COLOURS) else methods.get(arm, arm)
        colour = colours.setdefault(family, COLOURS[len(colours) % len(COLOURS)])
        turn = place if len(others) <= len(COLOURS) else used[colour]
        used[colour] += 1
        found[arm] = Look("other", colour, MARKERS[turn % len(MARKERS)], LINES[turn % len(LINES)])
    return found
