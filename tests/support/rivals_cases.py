"""Settings of rival methods and of their combinations, and the expected distribution of every token under them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from esamp import ESampConfig
from esamp.methods import registry
from esamp.options import Options
from esamp.sampling import Sampling
from support import rivals_reference as reference
from support.request_reference import replay
from support.rivals_reference import Change, Place, Recipe


@dataclass(frozen=True)
class Case:
    """A method with its options, and the sampler settings of the request."""

    method: str
    options: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def parsed_options(self) -> Options:
        return registry.get(self.method).options(**self.options)

    @property
    def sampling(self) -> Sampling:
        """The sampler settings of the request."""
        return Sampling(max_tokens=12, **self.settings)

    @property
    def final_sampling(self) -> Sampling:
        """The sampler settings after the method has changed them."""
        return registry.get(self.method).sampler(self.parsed_options, self.sampling)

    @property
    def esamp_options(self) -> ESampConfig:
        """The options of ESamp, with beta 0 if ESamp is not part of the method."""
        known = {name: value for name, value in self.options.items() if name in ESampConfig.model_fields}
        return ESampConfig(**known) if "esamp" in self.method.split("+") else ESampConfig(beta=0)

    def recipe(self, prompt: Sequence[int]) -> Recipe:
        """The sampler settings and filters of the reference implementation."""
        options = {name: field.default for name, field in type(self.parsed_options).model_fields.items()} | dict(
            self.options
        )
        parts = self.method.split("+")
        early: dict[str, Change] = {}
        late: dict[str, Change] = {}
        if "top_n_sigma" in parts:
            early["top_n_sigma"] = reference.top_n_sigma(options["n_sigma"])
        if "fire" in parts:
            early["fire"] = reference.fire(options["fire_temperature"], options["fire_k"])
        if "xtc" in parts:
            late["xtc"] = reference.xtc(options["xtc_probability"], options["xtc_threshold"])
        if "entropy_adaptive" in parts:
            late["entropy_adaptive"] = reference.entropy_adaptive(options["entropy_gain"])
        settings = dict(self.settings)
        native = {
            "min_p": options.get("p_base", settings.get("min_p", 0.0)),
            "presence": options.get("penalty_presence", settings.get("presence_penalty", 0.0)),
            "frequency": options.get("penalty_frequency", settings.get("frequency_penalty", 0.0)),
            "repetition": options.get("penalty_repetition", settings.get("repetition_penalty", 1.0)),
        }
        return Recipe(
            early=tuple(early[part] for part in parts if part in early),
            late=tuple(late[part] for part in parts if part in late),
            temperature=settings.get("temperature", 1.0),
            top_k=settings.get("top_k", 0),
            top_p=settings.get("top_p", 1.0),
            prompt=prompt,
            **native,
        )


TEMPERATURE = dict(temperature=1.4)
CASES: Mapping[str, Case] = {
    "vanilla": Case("vanilla", {}, dict(temperature=0.8, top_k=30, top_p=0.9)),
    "min_p": Case("min_p", {}, TEMPERATURE),
    "min_p, other filters": Case("min_p", dict(p_base=0.03), dict(temperature=2.0, top_k=9)),
    "penalties": Case("penalties", {}, TEMPERATURE),
    "all penalties": Case(
        "penalties", dict(penalty_presence=0.4, penalty_frequency=-0.6, penalty_repetition=1.3), dict(temperature=0.7)
    ),
    "min_p+penalties": Case("min_p+penalties", dict(penalty_frequency=1.0)),
    "top_n_sigma": Case("top_n_sigma", {}, dict(temperature=2.0)),
    "top_n_sigma, penalised": Case(
        "top_n_sigma", dict(n_sigma=1.5), dict(temperature=1.5, repetition_penalty=1.2, presence_penalty=0.5, top_k=7)
    ),
    "xtc": Case("xtc", {}, TEMPERATURE),
    "xtc, always": Case("xtc", dict(xtc_probability=1.0, xtc_threshold=0.05), dict(temperature=1.2, top_p=0.97)),
    "fire": Case("fire", {}, dict(temperature=0.7)),
    "fire, other filters": Case(
        "fire",
        dict(fire_temperature=10, fire_k=12),
        dict(temperature=0.6, top_p=0.9, min_p=0.3, repetition_penalty=1.3),
    ),
    "entropy_adaptive": Case("entropy_adaptive", {}, TEMPERATURE),
    "entropy_adaptive, filtered": Case("entropy_adaptive", dict(entropy_gain=0.004), dict(temperature=1.8, top_k=40)),
    "min_p+xtc+fire": Case("min_p+xtc+fire", dict(p_base=0.02), TEMPERATURE),
    "esamp+min_p": Case("esamp+min_p", dict(beta=1.5, p_base=0.05), TEMPERATURE),
    "esamp+penalties": Case("esamp+penalties", dict(beta=1.5)),
    "esamp+top_n_sigma": Case("esamp+top_n_sigma", dict(beta=1.5), TEMPERATURE),
    "esamp+xtc": Case("esamp+xtc", dict(beta=1.5), TEMPERATURE),
    "esamp+fire": Case("esamp+fire", dict(beta=1.5), dict(temperature=0.8)),
    "esamp+entropy_adaptive": Case("esamp+entropy_adaptive", dict(beta=1.5), TEMPERATURE),
    "all methods": Case(
        "esamp+top_n_sigma+fire+entropy_adaptive+xtc+min_p+penalties",
        dict(beta=1.5, n_sigma=2.5, entropy_gain=0.0005, p_base=0.01, xtc_threshold=0.08),
        dict(temperature=1.6, top_k=60),
    ),
    "candidates of the reference": Case(
        "esamp+top_n_sigma+xtc", dict(beta=1.5, candidates="reference", n_sigma=1.5), dict(temperature=1.3, top_k=20)
    ),
    "action signal": Case("esamp+fire+xtc", dict(signal="both", beta=0.8, gain=0.3, waves=1), TEMPERATURE),
}


def expected_distributions(
    case: Case,
    model: PreTrainedModel,
    prompt: Sequence[int],
    samples: Sequence[Sequence[int]],
    *,
    seed: int,
    protected: frozenset[int],
) -> Iterator[Tensor]:
    """For each sample of a group the distributions `[T, V]` float64 that its tokens must have been drawn from."""
    recipe, config = case.recipe(prompt), case.esamp_options
    for index, (tokens, (fused, own)) in enumerate(zip(samples, replay(model, prompt, samples, config), strict=True)):
        by_reference = config.candidates == "reference"
        rows = []
        for position in range(len(tokens)):
            place = Place(position, index, seed, recipe.temperature, protected)
            selecting, moved = (own, (fused - own)[position].tolist()) if by_reference else (fused, None)
            rows.append(recipe.distribution(selecting[position].tolist(), tokens[:position], place, moved))
        yield torch.tensor(rows, dtype=torch.float64)
