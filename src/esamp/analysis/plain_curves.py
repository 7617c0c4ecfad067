"""Plain sampling in a study: arms that only set the engine's sampler, and the curves over one of its settings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from esamp.methods import registry as methods
from esamp.sampling import Sampling
from esamp.study.arm import Arm
from esamp.study.config import PLAIN_METHODS, Study

SweptSetting: TypeAlias = Literal["temperature", "top_p", "min_p"]
SWEPT_SETTINGS: Mapping[SweptSetting, str] = {"temperature": "temperature", "top_p": "top-p", "min_p": "min-p"}
"""The settings over which there are curves, and their names in reports."""


@dataclass(frozen=True)
class PlainCurve:
    """Arms of plain sampling that differ in one setting only."""

    setting: SweptSetting
    arms: tuple[Arm, ...]
    """at least two, in rising order of the setting"""
    fixed: str = ""
    """other settings in which they differ from the baseline, in words"""

    @property
    def name(self) -> str:
        setting = SWEPT_SETTINGS[self.setting]
        return f"{setting}, at {self.fixed}" if self.fixed else setting

    @property
    def labels(self) -> frozenset[str]:
        """The labels of the arms."""
        return frozenset(arm.label for arm in self.arms)


def plain_arms(study: Study) -> list[Arm]:
    """The arms of vanilla and min-p."""
    return [arm for arm in study.arms if arm.method in PLAIN_METHODS]


def sampler(arm: Arm) -> Sampling:
    """The settings of the engine's sampler; min-p may be one of them or an option of the method."""
    return methods.get(arm.method).sampler(arm.options, arm.sampling)


def setting_value(arm: Arm, setting: SweptSetting) -> float:
    """The arm's value of a setting."""
    return float(sampler(arm).model_dump()[setting])


def other_settings(arm: Arm, setting: SweptSetting) -> Mapping[str, object]:
    """The arm's values of all other settings."""
    return {name: value for name, value in sampler(arm).model_dump().items() if name != setting}


def curves(study: Study) -> list[PlainCurve]:
    """The curves over temperature, top-p and min-p that have the baseline's other settings."""
    return [curve for curve in all_curves(study) if not curve.fixed]


def all_curves(study: Study) -> list[PlainCurve]:
    """Every curve of plain sampling, those with the baseline's other settings first."""
    plain = plain_arms(study)
    base = next((arm for arm in plain if arm.label == study.baseline), plain[0] if plain else None)
    if base is None:
        return []
    curves = []
    for setting in SWEPT_SETTINGS:
        families: list[list[Arm]] = []
        for arm in plain:
            others = other_settings(arm, setting)
            family = next((own for own in families if other_settings(own[0], setting) == others), None)
            if family is None:
                families.append([arm])
            elif setting_value(arm, setting) not in [setting_value(own, setting) for own in family]:
                family.append(arm)
        curves += [_curve(setting, family, base) for family in families if len(family) > 1]
    return sorted(curves, key=lambda curve: bool(curve.fixed))


def _curve(setting: SweptSetting, family: Sequence[Arm], base: Arm) -> PlainCurve:
    base_values, own = other_settings(base, setting), other_settings(family[0], setting)
    names: Mapping[str, str] = {str(name): words for name, words in SWEPT_SETTINGS.items()}
    differing = [f"{names.get(name, name)} {_short(own[name])}" for name in own if own[name] != base_values[name]]
    arms = sorted(family, key=lambda arm: setting_value(arm, setting))
    return PlainCurve(setting, tuple(arms), ", ".join(differing))


def setting_words(setting: SweptSetting, value: float) -> str:
    """A value of a setting, such as ``T 0.85``."""
    name = "T" if setting == "temperature" else SWEPT_SETTINGS[setting]
    return f"{name} {value:.{3 if setting == 'min_p' else 2}f}"


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
