"""Colour, marker and line of each arm: the baseline black, vanilla at other settings grey, the other arms in colour."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from esamp.study.config import Study

Role: TypeAlias = Literal["vanilla", "other", "baseline"]

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Okabe and Ito's palette for colour-blind readers, without its yellow."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "*")
LINES = ("-", "--", "-.", ":")
BASELINE, VANILLA = "#1a1a1a", "#8a8a8a"


@dataclass(frozen=True)
class ArmStyle:
    """How one arm is drawn, in all figures."""

    role: Role
    colour: str
    marker: str
    line: str


ArmStyles: TypeAlias = Mapping[str, ArmStyle]
"""Styles by the label of the arm."""


def arm_styles(study: Study, arms: Iterable[str]) -> dict[str, ArmStyle]:
    """A style for each arm; no two coloured arms have the same one.

    Up to six coloured arms have a colour each; if there are more, the arms of one method share a colour. A study that
    has no method but vanilla colours vanilla's settings.
    """
    methods = {arm.label: arm.method for arm in study.arms}
    names = [arm for arm in arms if arm != study.baseline]
    coloured = [arm for arm in names if methods.get(arm) != "vanilla"] or names
    styles = {study.baseline: ArmStyle("baseline", BASELINE, "o", "-")}
    styles |= {arm: ArmStyle("vanilla", VANILLA, "o", "-") for arm in names}
    few = len(coloured) <= len(COLOURS)
    colours: dict[str, str] = {}
    used: Counter[str] = Counter()
    for index, arm in enumerate(coloured):
        family = arm if few else methods.get(arm, arm)
        colour = colours.setdefault(family, COLOURS[len(colours) % len(COLOURS)])
        variant = index if few else used[colour]
        used[colour] += 1
        styles[arm] = ArmStyle("other", colour, MARKERS[variant % len(MARKERS)], LINES[variant % len(LINES)])
    return styles
