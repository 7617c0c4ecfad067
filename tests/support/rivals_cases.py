"""What rivals and their combinations are asked on real models, and what each of their tokens should be drawn from."""

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
from support.rivals_reference import Change, Place, Recipe
from support.vllm_models import replay


@dataclass(frozen=True)
class Scene:
    """A method by name, and how it is set."""

    method: str
    options: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    """of the request's own sampler"""

    @property
    def own(self) -> Options:
        return registry.get(self.method).options(**self.options)

    @property
    def sampling(self) -> Sampling:
        """As the request has it."""
        return Sampling(max_tokens=12, **self.settings)

    @property
    def final(self) -> Sampling:
        """As the method has it set."""
        return registry.get(self.method).sampler(self.own, self.sampling)

    @property
    def esamp(self) -> ESampConfig:
        """The method of states, which may be none."""
        wanted = {name: value for name, value in self.options.items() if name in ESampConfig.model_fields}
        return ESampConfig(**wanted) if "esamp" in self.method.split("+") else ESampConfig(beta=0)

    def recipe(self, prompt: Sequence[int]) -> Recipe:
        """All of it in numbers, with the filters by their definitions."""
        given = {name: field.default for name, field in type(self.own).model_fields.items()} | dict(self.options)
        parts = self.method.split("+")
        early: dict[str, Change] = {}
        late: dict[str, Change] = {}
        if "top_n_sigma" in parts:
            early["top_n_sigma"] = reference.top_n_sigma(given["n_sigma"])
        if "fire" in parts:
            early["fire"] = reference.fire(given["fire_temperature"], given["fire_k"])
        if "xtc" in parts:
            late["xtc"] = reference.xtc(given["xtc_probability"], given["xtc_threshold"])
        if "entropy_adaptive" in parts:
            late["entropy_adaptive"] = reference.entropy_adaptive(given["entropy_gain"])
        asked = dict(self.settings)
        native = {
            "min_p": given.get("p_base", asked.get("min_p", 0.0)),
            "presence": given.get("penalty_presence", asked.get("presence_penalty", 0.0)),
            "frequency": given.get("penalty_frequency", asked.get("frequency_penalty", 0.0)),
            "repetition": given.get("penalty_repetition", asked.get("repetition_penalty", 1.0)),
        }
        return Recipe(
            early=tuple(early[part] for part in parts if part in early),
            late=tuple(late[part] for part in parts if part in late),
            temperature=asked.get("temperature", 1.0),
            top_k=asked.get("top_k", 0),
            top_p=asked.get("top_p", 1.0),
            prompt=prompt,
            **native,
        )


WARM = dict(temperature=1.4)
SCENES: Mapping[str, Scene] = {
    "vanilla": Scene("vanilla", {}, dict(temperature=0.8, top_k=30, top_p=0.9)),
    "min_p": Scene("min_p", {}, WARM),
    "min_p, other filters": Scene("min_p", dict(p_base=0.03), dict(temperature=2.0, top_k=9)),
    "penalties": Scene("penalties", {}, WARM),
    "all penalties": Scene(
        "penalties", dict(penalty_presence=0.4, penalty_frequency=-0.6, penalty_repetition=1.3), dict(temperature=0.7)
    ),
    "min_p+penalties": Scene("min_p+penalties", dict(penalty_frequency=1.0)),
    "top_n_sigma": Scene("top_n_sigma", {}, dict(temperature=2.0)),
    "top_n_sigma, penalised": Scene(
        "top_n_sigma", dict(n_sigma=1.5), dict(temperature=1.5, repetition_penalty=1.2, presence_penalty=0.5, top_k=7)
    ),
    "xtc": Scene("xtc", {}, WARM),
    "xtc, always": Scene("xtc", dict(xtc_probability=1.0, xtc_threshold=0.05), dict(temperature=1.2, top_p=0.97)),
    "fire": Scene("fire", {}, dict(temperature=0.7)),
    "fire, other filters": Scene(
        "fire",
        dict(fire_temperature=10, fire_k=12),
        dict(temperature=0.6, top_p=0.9, min_p=0.3, repetition_penalty=1.3),
    ),
    "entropy_adaptive": Scene("entropy_adaptive", {}, WARM),
    "entropy_adaptive, filtered": Scene("entropy_adaptive", dict(entropy_gain=0.004), dict(temperature=1.8, top_k=40)),
    "min_p+xtc+fire": Scene("min_p+xtc+fire", dict(p_base=0.02), WARM),
    "esamp+min_p": Scene("esamp+min_p", dict(beta=1.5, p_base=0.05), WARM),
    "esamp+penalties": Scene("esamp+penalties", dict(beta=1.5)),
    "esamp+top_n_sigma": Scene("esamp+top_n_sigma", dict(beta=1.5), WARM),
    "esamp+xtc": Scene("esamp+xtc", dict(beta=1.5), WARM),
    "esamp+fire": Scene("esamp+fire", dict(beta=1.5), dict(temperature=0.8)),
    "esamp+entropy_adaptive": Scene("esamp+entropy_adaptive", dict(beta=1.5), WARM),
    "all of them": Scene(
        "esamp+top_n_sigma+fire+entropy_adaptive+xtc+min_p+penalties",
        dict(beta=1.5, n_sigma=2.5, entropy_gain=0.0005, p_base=0.01, xtc_threshold=0.08),
        dict(temperature=1.6, top_k=60),
    ),
    "survivors by reference": Scene(
        "esamp+top_n_sigma+xtc", dict(beta=1.5, candidates="reference", n_sigma=1.5), dict(temperature=1.3, top_k=20)
    ),
    "memory of actions": Scene("esamp+fire+xtc", dict(signal="both", beta=0.8, gain=0.3, waves=1), WARM),
}


def wanted(
    scene: Scene,
    model: PreTrainedModel,
    prompt: Sequence[int],
    samples: Sequence[Sequence[int]],
    *,
    seed: int,
    protected: frozenset[int],
) -> Iterator[Tensor]:
    """Of each of a group's samples, what its tokens should have been drawn from, `[T, V]` float64."""
    recipe, config = scene.recipe(prompt), scene.esamp
    for index, (tokens, (fused, own)) in enumerate(zip(samples, replay(model, prompt, samples, config), strict=True)):
        by_reference = config.candidates == "reference"
        rows = []
        for position in range(len(tokens)):
            place = Place(position, index, seed, recipe.temperature, protected)
            judged, moved = (own, (fused - own)[position].tolist()) if by_reference else (fused, None)
            rows.append(recipe.distribution(judged[position].tolist(), tokens[:position], place, moved))
        yield torch.tensor(rows, dtype=torch.float64)
