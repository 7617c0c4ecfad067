"""Guided sampling: concepts one after the other, solutions in one batch."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from esamp.engines.base import Completion, Engine, Request
from esamp.engines.hf import HFEngine
from esamp.errors import OptionError
from esamp.methods import registry
from esamp.sampling import Sampling
from esamp.search.base import answer
from support.chat_model import CHAT, chat_engine
from support.scripted_engine import ScriptedEngine, texts


def request(n: int = 4, **changes: Any) -> Request:
    options = registry.get("guided").options.parse(changes.pop("options", {}))
    given: dict[str, Any] = dict(prompt=CHAT, method="guided", options=options, n=n) | changes
    return Request("r", **given)


def only(engine: Engine, search: Request) -> Completion:
    [completion] = answer(engine, [search])
    json.dumps(completion.details, allow_nan=False)
    assert [sample.index for sample in completion.samples] == list(range(len(completion.samples)))
    assert len(completion.samples) == search.n
    return completion


def proposing(*concepts: str) -> Callable[[Request, int], str]:
    """A script with these proposals, and with solutions that name the number of their concept."""

    def script(call: Request, index: int) -> str:
        kind, number = call.id.split("/")[1].split()
        return concepts[int(number) - 1] if kind == "proposal" else f"solution {number}.{index}"

    return script


def last_message(call: Request) -> str:
    return call.prompt if isinstance(call.prompt, str) else call.prompt[-1]["content"]


def test_each_proposal_lists_the_earlier_concepts_and_solutions_form_one_batch() -> None:
    engine = ScriptedEngine(proposing("divide", "count\n twice ", "1. guess", "draw"))
    completion = only(engine, request(n=10, sampling=Sampling(max_tokens=99, stop=("END",), top_k=5)))
    proposals, solutions = engine.requests[:4], engine.requests[4:]
    assert engine.batches == 5
    assert last_message(proposals[0]).endswith("do not work on the task itself.\n\nName a tree.")
    assert "already" not in last_message(proposals[0])
    assert "1. divide\n2. count twice\n3. guess\n\nName one" in last_message(proposals[3])
    assert all(each.prompt[0] == CHAT[0] for each in engine.requests)
    assert all(each.sampling == Sampling(max_tokens=64, top_k=5) for each in proposals)
    assert [last_message(each) for each in solutions] == [
        f"Work on the task below with this concept:\n\n{concept}\n\nName a tree."
        for concept in ("divide", "count twice", "guess", "draw")
    ]
    assert all(each.sampling.stop == ("END",) for each in solutions)
    assert [each.n for each in solutions] == [3, 3, 2, 2]
    assert texts(completion)[:4] == ["solution 1.0", "solution 1.1", "solution 1.2", "solution 2.0"]
    assert completion.details["concept"] == [0, 0, 0, 1, 1, 1, 2, 2, 3, 3]
    assert completion.details["concepts"] == ["divide", "count twice", "guess", "draw"]
    assert completion.spent is not None
    assert completion.spent.calls == 14
    assert completion.spent.prompt_tokens == 80
    assert completion.spent.tokens == sum(
        map(len, ["divide", "count\n twice ", "1. guess", "draw", *texts(completion)])
    )
    assert len({each.seed for each in engine.requests}) == 8


def test_a_plain_prompt_is_continued_by_a_numbered_list() -> None:
    engine = ScriptedEngine(proposing("\n add first \nand more", "2. multiply"))
    completion = only(engine, request(n=2, prompt="Numbers 1 2", options=dict(concepts=2)))
    assert completion.details["concepts"] == ["add first", "multiply"]
    assert last_message(engine.requests[1]) == (
        "Numbers 1 2\n\nApproaches to this, each new and different from those before it:\n1. add first\n2."
    )
    assert last_message(engine.requests[2]) == "Approach: add first\n\nNumbers 1 2"


@pytest.mark.parametrize(
    ("proposed", "kept", "shares"),
    [
        (["divide", "Divide", "  ", "count"], ["divide", "count"], [5, 4]),
        (["divide", "None.", "count", "draw"], ["divide"], [9]),
        (["none", "divide", "count", "draw"], [], [9]),
        (["", "", "", ""], [], [9]),
        (["{x}", "{", "%s", "\\1"], ["{x}", "{", "%s", "\\1"], [3, 2, 2, 2]),
    ],
    ids=str,
)
def test_empty_repeated_and_none_proposals_are_dropped(proposed: list[str], kept: list[str], shares: list[int]) -> None:
    engine = ScriptedEngine(proposing(*proposed))
    completion = only(engine, request(n=9))
    assert completion.details["concepts"] == kept
    solutions = [each for each in engine.requests if "concept" in each.id]
    assert [each.n for each in solutions] == shares
    if not kept:
        assert solutions[0].prompt == CHAT
        assert completion.details["concept"] == [None] * 9
    calls = next((n for n, each in enumerate(proposed, 1) if each.casefold().startswith("none")), 4)
    assert len(completion.details["proposals"]) == calls


def test_at_most_n_concepts_are_proposed() -> None:
    engine = ScriptedEngine(proposing("a", "b", "c", "d"))
    assert only(engine, request(n=2)).details["concepts"] == ["a", "b"]
    assert engine.batches == 3
    assert only(ScriptedEngine(proposing("a")), request(n=1)).details["concept"] == [0]


def test_equal_proposal_prompts_have_different_seeds() -> None:
    engine = ScriptedEngine(proposing("a", "a", "a", "a"))
    only(engine, request())
    repeated = engine.requests[1:4]
    assert len({str(each.prompt) for each in repeated}) == 1
    assert len({each.own_seed for each in repeated}) == 3


def test_progress_counts_only_solutions_as_samples() -> None:
    seen: list[tuple[int, int]] = []
    method: Any = registry.get("guided")
    completion = method.run(
        ScriptedEngine(proposing("a", "b", "c", "d")), request(n=6), progress=lambda *more: seen.append(more)
    )
    assert [sum(column) for column in zip(*seen, strict=True)] == [6, completion.spent.tokens]


def test_invalid_options_are_refused() -> None:
    for options in (dict(concepts=0), dict(concept_tokens=0), dict(over="best_of_n"), dict(over="verbalized")):
        with pytest.raises(OptionError):
            registry.get("guided").options.parse(options)


def test_guided_sampling_of_the_embedded_model_is_reproducible() -> None:
    engine = HFEngine.load()
    search = request(
        n=5,
        prompt="Numbers 3 5 8 9 target 24",
        sampling=Sampling(max_tokens=24),
        options=dict(concepts=2, concept_tokens=8, over="esamp", over_options=dict(beta=0.5)),
    )
    completion = only(engine, search)
    proposals = completion.details["proposals"]
    assert len(proposals) == 2
    solution_tokens = sum(len(sample.token_ids) for sample in completion.samples)
    assert solution_tokens < completion.cost.tokens <= solution_tokens + 16
    assert completion.cost.calls == 7
    assert texts(only(engine, search)) == texts(completion)
    assert texts(only(engine, replace(search, seed=3))) != texts(completion)


def test_the_cost_on_a_chat_model_counts_proposals_and_solutions() -> None:
    search = request(n=3, sampling=Sampling(max_tokens=8), options=dict(concepts=2, concept_tokens=8))
    completion = only(chat_engine(), search)
    assert completion.cost.calls == 5
    assert completion.details["concept"] in ([0, 0, 1], [0, 0, 0])
