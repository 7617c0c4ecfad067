"""The measurement of likelihoods and entropies of the texts under a language model."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Literal

from esamp.analysis.measurement import (
    MeasureGroup,
    Measurement,
    StoredValues,
    measurement_name,
    read_count,
    read_number,
    stored_number,
)
from esamp.engines.base import Request, Sample
from esamp.study.group_measurements import GroupLikelihoods, GroupMeasurements
from esamp.study.records import Record
from esamp.study.schema import ModelSpec


def likelihoods(role: Literal["own", "second"], spec: ModelSpec, *, entropy: bool = True) -> Measurement:
    """Likelihoods of the texts under a model at temperature 1.

    Args:
        role: "own" for the model that drew the samples, which reads the request's prompt and the sampled tokens.
            "second" for another model, which reads prompt and texts through its own tokenizer.
        spec: the model.
        entropy: whether to measure the entropy of the model's next-token distribution as well.
    """

    def start(stack: ExitStack) -> MeasureGroup:
        from esamp.engines.hf import HFEngine  # imports transformers, which takes seconds

        engine = stack.enter_context(HFEngine.load(spec.model, device=spec.device, dtype=spec.dtype))

        def measure(request: Request, record: Record) -> StoredValues:
            scored = request if role == "own" else replace(request, prompt=_prompt_text(request))
            samples = [
                Sample(sample.index, sample.text or "", (sample.token_ids or ()) if role == "own" else (), "stop")
                for sample in record.samples
            ]
            found = engine.score(scored, samples, distribution=entropy)
            return {
                "nll": [stored_number(-likelihood.mean) for likelihood in found],
                "entropy": [stored_number(likelihood.entropy) for likelihood in found],
                "tokens": [likelihood.tokens for likelihood in found],
            }

        return measure

    def add(measured: GroupMeasurements, values: Mapping[str, Any]) -> GroupMeasurements:
        nll, entropies = (tuple(map(read_number, values[name])) for name in ("nll", "entropy"))
        found = GroupLikelihoods(nll, entropies, tuple(map(read_count, values["tokens"])))
        return replace(measured, own=found) if role == "own" else replace(measured, second=found)

    settings = spec.model_dump(mode="json", include={"model", "dtype"})
    name = measurement_name(role, settings if entropy else {**settings, "entropy": False})
    model = spec if role == "own" else None
    return Measurement(name, f"likelihoods under {spec.name}", start, add, model, role=role)


def _prompt_text(request: Request) -> str:
    """The prompt as text, for a model that may have no chat template."""
    if isinstance(request.prompt, str):
        return request.prompt
    return "\n\n".join(turn["content"] for turn in request.prompt)
