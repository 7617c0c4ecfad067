"""`Engine.score` of the transformers engine against the definitions, one token after the other."""

import math
from dataclasses import replace

import pytest

from esamp.engines.base import Request, Sample
from esamp.engines.hf import HFEngine, score
from esamp.errors import UnsupportedError
from esamp.sampling import Sampling
from support.hf_reference import likelihood
from support.scripted_engine import ScriptedEngine

PROMPT = "Numbers 3 5 8 9 target 24"


@pytest.fixture(scope="module")
def engine() -> HFEngine:
    return HFEngine.load()


def draw(engine: HFEngine, n: int, temperature: float = 1.0) -> tuple[Request, tuple[Sample, ...]]:
    """A request and its samples of 12 tokens at most."""
    request = Request("r", PROMPT, n, Sampling(max_tokens=12, temperature=temperature), "vanilla")
    [completion] = engine.generate([request])
    return request, completion.samples


def test_likelihoods_equal_their_definitions(engine: HFEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one batch, and one by one with few positions at a time."""
    request, drawn = draw(engine, 3, temperature=1.5)
    samples = [*drawn, replace(drawn[0], token_ids=drawn[0].token_ids[:5]), drawn[0]]
    in_one_batch = engine.score(request, samples, distribution=True)
    monkeypatch.setattr(score, "MAX_LOGITS", 1)
    monkeypatch.setattr(score, "POSITIONS", 5)
    one_by_one = engine.score(request, samples, distribution=True)
    prompt = engine.tokenizer(PROMPT).input_ids
    for sample, *found in zip(samples, in_one_batch, one_by_one, strict=True):
        total, certainty, entropy = likelihood(engine.model, prompt, sample.token_ids)
        for each in found:
            assert each.entropy == pytest.approx(entropy, rel=1e-4)
            assert each.total == pytest.approx(total, rel=1e-4)
            assert each.mean == pytest.approx(total / len(sample.token_ids), rel=1e-4)
            assert each.certainty == pytest.approx(certainty, rel=1e-4)
            assert each.tokens == len(sample.token_ids)


def test_a_sample_without_token_ids_is_scored_by_its_text(engine: HFEngine) -> None:
    request, [sample] = draw(engine, 1)
    [with_ids, without_ids] = engine.score(request, [sample, replace(sample, token_ids=())])
    assert with_ids == without_ids


def test_an_empty_sample_has_no_likelihood(engine: HFEngine) -> None:
    request, [sample] = draw(engine, 1)
    [empty] = engine.score(request, [replace(sample, text="", token_ids=())])
    assert math.isnan(empty.total)
    assert math.isnan(empty.mean)
    assert empty.tokens == 0


def test_certainty_and_entropy_are_nan_without_distribution(engine: HFEngine) -> None:
    request, [sample] = draw(engine, 1)
    [found] = engine.score(request, [sample])
    assert math.isfinite(found.total)
    assert math.isnan(found.certainty)
    assert math.isnan(found.entropy)


def test_an_engine_without_an_implementation_refuses_to_score() -> None:
    request = Request("r", PROMPT, method="vanilla")
    with pytest.raises(UnsupportedError, match="ScriptedEngine cannot score given tokens: use the engine 'hf'"):
        ScriptedEngine(["a"]).score(request, [Sample(0, "a", (1,), "stop")])
