"""Verbalized sampling: instructions, the reading of replies, and models that do not follow the instructions."""

import json
from collections import Counter
from typing import Any

import pytest

from esamp.engines.base import Completion, Engine, Request
from esamp.engines.hf import HFEngine
from esamp.errors import InputError, OptionError
from esamp.methods import registry
from esamp.sampling import Sampling
from esamp.search.base import answer
from support.chat_model import CHAT, chat_engine
from support.scripted_engine import ScriptedEngine, tagged, texts


def request(n: int = 4, **changes: Any) -> Request:
    options = registry.get("verbalized").options.parse(changes.pop("options", {}))
    given: dict[str, Any] = dict(prompt="Name a tree.", method="verbalized", options=options, n=n) | changes
    return Request("r", **given)


def only(engine: Engine, search: Request) -> Completion:
    [completion] = answer(engine, [search])
    json.dumps(completion.details, allow_nan=False)
    assert completion.request is search
    assert [sample.index for sample in completion.samples] == list(range(len(completion.samples)))
    return completion


OAKS = tagged(("oak", 0.5), ("elm", 0.3), ("oak ", 0.2))
PINES = tagged(("pine", 0.9), ("fir", 0.3))


def test_calls_form_one_batch_and_answers_keep_their_order() -> None:
    engine = ScriptedEngine([OAKS, PINES])
    completion = only(engine, request(n=5, options=dict(answers_per_call=3), seed=7))
    [call] = engine.requests
    assert (call.n, call.method, call.seed) == (2, "vanilla", 7)
    assert isinstance(call.prompt, str)
    assert call.prompt.startswith("Give 3 different responses")
    assert call.prompt.endswith("random from the full distribution of responses.\n\nName a tree.")
    assert texts(completion) == ["oak", "elm", "oak", "pine", "fir"]
    assert completion.details["stated"] == [0.5, 0.3, 0.2, 0.9, 0.3]
    assert completion.details["weights"] == pytest.approx([0.5, 0.3, 0.2, 0.75, 0.25])
    assert completion.details["call"] == [0, 0, 0, 1, 1]
    assert completion.details["calls"] == [OAKS, PINES]
    assert completion.details["unparsed"] == 0
    assert completion.spent is not None
    assert (completion.spent.tokens, completion.spent.calls) == (len(OAKS) + len(PINES), 2)


@pytest.mark.parametrize(("n", "calls"), [(1, 1), (5, 1), (6, 2), (30, 6)])
def test_the_number_of_calls_is_n_divided_by_answers_per_call(n: int, calls: int) -> None:
    engine = ScriptedEngine([tagged(*((f"{place}", 0.2) for place in range(5)))])
    assert len(only(engine, request(n=n)).samples) == n
    assert engine.requests[0].n == calls


def test_instructions_are_added_to_the_last_user_message_of_a_chat() -> None:
    engine = ScriptedEngine([OAKS])
    only(engine, request(prompt=CHAT, options=dict(probability_below=0.1, stated_in="json", answers_per_call=2)))
    turns = engine.requests[0].prompt
    assert not isinstance(turns, str)
    assert turns[0] == CHAT[0]
    assert turns[1]["content"].startswith("Give 2 different responses to what follows, as one JSON object")
    assert turns[1]["content"].endswith("so that the probability of each is below 0.1.\n\nName a tree.")
    with pytest.raises(InputError, match="no message with role 'user'"):
        only(engine, request(prompt=CHAT[:1]))


def test_a_reply_in_another_format_is_one_answer() -> None:
    completion = only(ScriptedEngine([OAKS, "I would rather not.", ""]), request(n=11))
    assert texts(completion) == ["oak", "elm", "oak", "I would rather not.", ""]
    assert completion.details["stated"][3:] == [None, None]
    assert completion.details["unparsed"] == 2
    assert completion.details["unparsed_calls"] == [1, 2]
    assert completion.samples[3].token_ids == tuple(map(ord, "I would rather not."))
    assert completion.samples[0].token_ids == ()


def test_an_answer_that_was_cut_off_has_the_finish_reason_length() -> None:
    completion = only(ScriptedEngine([OAKS + "<response><text>wil"], cut=True), request())
    assert texts(completion) == ["oak", "elm", "oak", "wil"]
    assert [sample.finish_reason for sample in completion.samples] == ["stop", "stop", "stop", "length"]


def test_distinct_adds_up_the_weights_of_equal_texts() -> None:
    completion = only(ScriptedEngine([OAKS]), request(n=3, options=dict(distinct=True)))
    assert texts(completion) == ["oak", "elm"]
    assert completion.details["weights"] == pytest.approx([0.7, 0.3])


def test_draws_follow_the_mean_of_the_stated_distributions() -> None:
    impossible = tagged(("pine", 0.75), ("fir", 0.25), ("yew", 0.0))
    engine = ScriptedEngine([OAKS, impossible])
    completion = only(engine, request(n=4000, options=dict(answers_per_call=100, pick="drawn")))
    assert engine.requests[0].n == 40
    counts = Counter(texts(completion))
    expected = {"oak": 0.35, "elm": 0.15, "pine": 0.375, "fir": 0.125}  # half of .7, .3, .75 and .25
    assert set(counts) == set(expected)
    for text, share in expected.items():
        assert counts[text] / 4000 == pytest.approx(share, abs=0.04)  # five standard deviations
    assert texts(only(engine, completion.request)) == texts(completion)


def test_draws_without_replacement_are_distinct_and_have_positive_weight() -> None:
    first: Counter[str] = Counter()
    script = tagged(("a", 0.6), ("b", 0.4), ("never", 0.0))
    for seed in range(600):
        search = request(n=3, seed=seed, options=dict(pick="drawn", distinct=True))
        drawn = texts(only(ScriptedEngine([script]), search))
        assert sorted(drawn) == ["a", "b"]
        first[drawn[0]] += 1
    assert first["a"] / 600 == pytest.approx(0.6, abs=0.1)  # five standard deviations


def test_progress_counts_answers_not_calls() -> None:
    seen: list[tuple[int, int]] = []
    method: Any = registry.get("verbalized")
    method.run(ScriptedEngine([OAKS]), request(n=3), progress=lambda *more: seen.append(more))
    assert [sum(column) for column in zip(*seen, strict=True)] == [3, len(OAKS)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(answers_per_call=0), "'answers_per_call' = 0"),
        (dict(probability_below=0.0), "probability_below"),
        (dict(pick="some"), "pick"),
        (dict(over="none"), "over 'none': unknown method"),
        (dict(over="guided"), "a search cannot run under this method"),
        (dict(over="majority_vote"), "a selection cannot run under this method"),
        (dict(over_options=dict(beta=1.0)), "over 'vanilla': unknown option 'beta'"),
        (dict(over="esamp", over_options=dict(beta="x")), "over 'esamp': option 'beta'"),
        (dict(over_options=[]), "over_options"),
    ],
    ids=str,
)
def test_an_invalid_option_is_named_in_the_error(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        registry.get("verbalized").options.parse(options)


@pytest.fixture(scope="module")
def embedded() -> HFEngine:
    return HFEngine.load()


def test_replies_of_the_embedded_model_are_counted_as_unparsed(embedded: HFEngine) -> None:
    search = request(n=10, prompt="Numbers 3 5 8 9 target 24", sampling=Sampling(max_tokens=24))
    completion = only(embedded, search)
    assert completion.details["unparsed"] == len(completion.samples) == 2
    assert completion.details["stated"] == [None, None]
    assert texts(completion) == completion.details["calls"]
    assert completion.cost.tokens == sum(len(sample.token_ids) for sample in completion.samples)
    assert completion.cost.calls == 2
    assert completion.cost.seconds > 0
    assert texts(only(embedded, search)) == texts(completion)
    assert texts(only(embedded, request(n=10, prompt=search.prompt, sampling=search.sampling, seed=1))) != texts(
        completion
    )


def test_telemetry_is_that_of_the_inner_method(embedded: HFEngine) -> None:
    search = request(
        n=15, prompt="Numbers 3 5 8 9 target 24", sampling=Sampling(max_tokens=24), options=dict(over="esamp")
    )
    completion = only(embedded, search)
    assert completion.telemetry["rows_steered"] > 0


def test_replies_of_a_chat_model_are_counted_as_unparsed() -> None:
    completion = only(chat_engine(), request(n=10, prompt=CHAT, sampling=Sampling(max_tokens=16)))
    assert len(completion.samples) == completion.details["unparsed"] == 2
    assert completion.cost.prompt_tokens > 200
