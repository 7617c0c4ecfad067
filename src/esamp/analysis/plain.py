"""Plain sampling in a study: the arms without a method of their own, and the curves that their settings draw."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from esamp.methods import registry as methods
from esamp.sampling import Sampling
from esamp.study.config import PLAIN, Arm, Study

Knob: TypeAlias = Literal["temperature", "top_p", "min_p"]
KNOBS: Mapping[Knob, str] = {"temperature": "temperature", "top_p": "top-p", "min_p": "min-p"}
"""The settings that make curves, and how reports call them."""


@dataclass(frozen=True)
class Curve:
    """Arms of plain sampling that differ in one setting alone."""

    knob: Knob
    arms: tuple[Arm, ...]
    """at least two, by rising value"""
    at: str = ""
    """other settings in which they differ from the baseline"""

    @property
    def name(self) -> str:
        """What reports call it."""
        return f"{KNOBS[self.knob]}, at {self.at}" if self.at else KNOBS[self.knob]

    @property
    def labels(self) -> frozenset[str]:
        """Of its arms."""
        return frozenset(arm.label for arm in self.arms)


def plain_arms(study: Study) -> list[Arm]:
    """Vanilla and min-p."""
    return [arm for arm in study.arms if arm.method in PLAIN]


def sampler(arm: Arm) -> Sampling:
    """What the engine's sampler is set to: min-p may be a setting of the sampler or the method's option."""
    return methods.get(arm.method).sampler(arm.options, arm.sampling)


def setting(arm: Arm, knob: Knob) -> float:
    """The arm's value of a setting."""
    return float(sampler(arm).model_dump()[knob])


def but(arm: Arm, knob: Knob) -> Mapping[str, object]:
    """All other settings of the arm."""
    return {name: value for name, value in sampler(arm).model_dump().items() if name != knob}


def curves(study: Study) -> list[Curve]:
    """Plain sampling over temperature, top-p and min-p, each with the baseline's other settings."""
    return [curve for curve in all_curves(study) if not curve.at]


def all_curves(study: Study) -> list[Curve]:
    """Every curve of plain sampling, those with the baseline's other settings first."""
    plain = plain_arms(study)
    base = next((arm for arm in plain if arm.label == study.baseline), plain[0] if plain else None)
    found = []
    for knob in KNOBS if base is not None else ():
        families: list[list[Arm]] = []
        for arm in plain:
            family = next((own for own in families if but(own[0], knob) == but(arm, knob)), None)
            if family is None:
                families.append([arm])
            elif setting(arm, knob) not in [setting(own, knob) for own in family]:
                family.append(arm)
        found += [_curve(knob, family, base) for family in families if base and len(family) > 1]
    return sorted(found, key=lambda curve: bool(curve.at))


def _curve(knob: Knob, family: Sequence[Arm], base: Arm) -> Curve:
    usual, own = but(base, knob), but(family[0], knob)
    names: Mapping[str, str] = {str(name): word for name, word in KNOBS.items()}
    other = [f"{names.get(name, name)} {_short(own[name])}" for name in own if own[name] != usual[name]]
    return Curve(knob, tuple(sorted(family, key=lambda arm: setting(arm, knob))), ", ".join(other))


def setting_words(knob: Knob, value: float) -> str:
    """A value of a setting, such as ``T 0.85``."""
    return f"{'T' if knob == 'temperature' else KNOBS[knob]} {value:.{3 if knob == 'min_p' else 2}f}"


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
