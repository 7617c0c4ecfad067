"""The settings of the page: each is an option that is declared elsewhere, with the value at which the page starts."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic.fields import FieldInfo

from esamp.compare.arms import vanilla_arm
from esamp.engines.base import Content, Request
from esamp.errors import OptionError, PromptError
from esamp.explorer.config import PRESETS, ESampConfig
from esamp.options import Options, allowed
from esamp.runs.job import PlaceOptions
from esamp.sampling import DEFAULT_TOKENS, Sampling
from esamp.study.arm import Arm

MOST_SAMPLES = 64
"""Most samples of each method on the page."""
PLAIN, ESAMP = "plain sampling", "ESamp"


@dataclass(frozen=True)
class Setting:
    """One setting of the page."""

    name: str
    title: str
    owner: type[Options]
    """class that declares the option"""
    option: str
    """name of the option in that class"""
    start: str | float | None
    """value at which the page starts; None is that of the preset"""
    most: int | None = None
    """upper limit of the page, if it is below the option's own"""

    @property
    def field(self) -> FieldInfo:
        """The option's declaration."""
        return self.owner.model_fields[self.option]

    @property
    def help(self) -> str:
        """What the option accepts."""
        return allowed(self.field) if self.most is None else f"{allowed(self.field).split(',')[0]}, at most {self.most}"

    @property
    def by_preset(self) -> bool:
        """Whether the preset has a value for it."""
        return self.start is None

    @property
    def description(self) -> str:
        """The option's meaning, as it is declared."""
        return " ".join((self.field.description or "").split())

    def check(self, value: object) -> None:
        """Check the page's own limit.

        Raises:
            OptionError: the value is above it.
        """
        if self.most is not None and isinstance(value, int | float) and value > self.most:
            raise OptionError(f"option {self.option!r} = {value}: this page takes at most {self.most}")


SETTINGS = (
    Setting("preset", "Preset of ESamp", ESampConfig, "preset", "open"),
    Setting("beta", "Beta", ESampConfig, "beta", None),
    Setting("esamp_temperature", "ESamp temperature", Sampling, "temperature", None),
    Setting("temperature", "Plain temperature", Sampling, "temperature", 0.8),
    Setting("n", "Samples", PlaceOptions, "n", 8, most=MOST_SAMPLES),
    Setting("max_tokens", "Most tokens", Sampling, "max_tokens", 48, most=DEFAULT_TOKENS),
    Setting("seed", "Seed", PlaceOptions, "seed", 0),
)
"""All settings, in the order of the page."""
CHOICES = tuple(PRESETS)
"""Names of the presets."""


def of_preset(preset: str) -> dict[str, float]:
    """The values of a preset for the settings that depend on it, by name.

    Raises:
        OptionError: there is no such preset.
    """
    config = ESampConfig.parse({"preset": preset})
    temperature = Request("preset", "", sampling=Sampling(), options=config).own_sampling.temperature
    return {"beta": config.beta, "esamp_temperature": temperature}


@dataclass(frozen=True)
class Choice:
    """A prompt and valid settings."""

    prompt: str
    n: int
    seed: int
    arms: tuple[Arm, Arm]
    """plain sampling and ESamp"""

    def request(self, arm: Arm, *, chat: bool) -> Request:
        """The engine's request for an arm; `chat` sends the prompt as a user's message."""
        content: Content = ({"role": "user", "content": self.prompt},) if chat else self.prompt
        return arm.request("prompt", content, self.n, self.seed)


def read(prompt: object, values: Mapping[str, object]) -> Choice:
    """The choice that a visitor made.

    Args:
        prompt: the text.
        values: by the names of `SETTINGS`, as the browser sent them; None or an empty text is an empty field.

    Raises:
        PromptError: there is no prompt.
        OptionError: a value is missing or out of range; names the option and what it accepts.
    """
    if not isinstance(prompt, str) or not prompt.strip():
        raise PromptError("The prompt is empty: type a text above, then press Enter or Run.")
    given: dict[str, Any] = {}
    for setting in SETTINGS:
        value = _number(values.get(setting.name))
        if value is None and not setting.by_preset:
            raise OptionError(f"{setting.title} is empty: give {setting.help}.")
        setting.check(value)
        given[setting.name] = value
    usual = of_preset(given["preset"])
    given = {name: value for name, value in given.items() if value is not None and value != usual.get(name)}
    place = PlaceOptions.parse({name: given[name] for name in ("n", "seed")})
    limit = {"max_tokens": given["max_tokens"]}
    plain = Sampling.parse({"temperature": given["temperature"], **limit})
    own = {"temperature": given["esamp_temperature"]} if "esamp_temperature" in given else {}
    config = ESampConfig.parse({name: given[name] for name in ("preset", "beta") if name in given})
    explored = Arm(ESAMP, "esamp", config, Sampling.parse({**limit, **own}))
    return Choice(prompt, place.n, place.seed, (vanilla_arm(PLAIN, plain), explored))


def _number(value: object) -> object:
    """A whole number as an integer (JSON has one kind of number), None for an empty field, else the value itself."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return None if value == "" else value
