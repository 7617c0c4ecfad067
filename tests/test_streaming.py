"""Texts that are passed on while samples are decoded: whole characters only, no stop texts, the sample's own text."""

from collections import defaultdict

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from esamp.engines.base import Completion, Request
from esamp.engines.hf import HFEngine
from esamp.engines.streaming import StreamedText
from esamp.sampling import Sampling
from esamp.search.base import stream
from esamp.search.options import MajorityVoteOptions
from support.scripted_engine import ScriptedEngine

TEXT = "naïve 漢字 🙂🏽 e\u0301 end"
PROMPT = "Numbers 3 5 8 9 target 24"


@pytest.fixture(scope="module")
def bytewise() -> PreTrainedTokenizerFast:
    """A tokenizer whose tokens are single bytes, so that most characters of `TEXT` take several tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({character: n for n, character in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


@pytest.fixture(scope="module")
def engine() -> HFEngine:
    return HFEngine.load()


def pieces(tokenizer: PreTrainedTokenizerFast, text: str, *stops: str, prompt: str = "漢字") -> list[str]:
    """What is passed on after each token of a text."""
    streamed = StreamedText(tokenizer, tokenizer(prompt).input_ids, stops)
    return [streamed.add([token]) for token in tokenizer(text).input_ids]


def test_no_piece_ends_within_a_character(bytewise: PreTrainedTokenizerFast) -> None:
    found = pieces(bytewise, TEXT)
    assert len(found) == len(TEXT.encode())
    assert [piece for piece in found if piece] == list(TEXT)


def test_a_character_that_never_ends_is_passed_on_at_the_end(bytewise: PreTrainedTokenizerFast) -> None:
    tokens = bytewise("a漢").input_ids[:-1]
    streamed = StreamedText(bytewise, [])
    assert "".join(streamed.add([token]) for token in tokens) == "a"
    assert streamed.finish(bytewise.decode(tokens)) == "\ufffd"


def test_what_may_begin_a_stop_text_is_held_back(bytewise: PreTrainedTokenizerFast) -> None:
    assert "".join(pieces(bytewise, "one END two", "END")) == "one "
    found = pieces(bytewise, "a EN b", "END")
    assert found == ["a", " ", "", "", "EN ", "b"]


def test_streamed_texts_are_those_of_the_samples(engine: HFEngine) -> None:
    for method, stops in (("esamp", ()), ("vanilla", ("=",)), ("diverse_beam", ())):
        texts: dict[int, str] = defaultdict(str)
        request = Request("a", PROMPT, 3, Sampling(max_tokens=24, stop=stops), method)

        def on_text(index: int, text: str, texts: dict[int, str] = texts) -> None:
            texts[index] += text

        outcome = engine.stream(request, on_text)
        assert isinstance(outcome, Completion)
        assert [texts[sample.index] for sample in outcome.samples] == [sample.text for sample in outcome.samples]
        [alone] = engine.generate([request])
        assert [sample.text for sample in alone.samples] == [sample.text for sample in outcome.samples]


def test_texts_arrive_while_the_sample_is_decoded(engine: HFEngine) -> None:
    events: list[str] = []
    request = Request("a", PROMPT, 1, Sampling(max_tokens=12), "vanilla")
    engine.stream(request, lambda _, text: events.append(text), progress=lambda *_: events.append("step"))
    assert events.count("step") > 4
    assert len([event for event in events if event != "step"]) > 4
    assert events[0] == "step"
    assert events[1] != "step"


def test_an_engine_without_a_stream_passes_on_the_texts_at_the_end() -> None:
    found: list[tuple[int, str]] = []
    outcome = ScriptedEngine(["one", "", "two"]).stream(Request("a", "b", 3), lambda *piece: found.append(piece))
    assert isinstance(outcome, Completion)
    assert found == [(0, "one"), (2, "two")]


def test_a_search_passes_on_the_texts_that_it_chose() -> None:
    found: list[tuple[int, str]] = []
    request = Request("a", "b", 4, options=MajorityVoteOptions(), method="majority_vote")
    outcome = stream(ScriptedEngine(["4", "5", "4", "4"]), request, lambda *piece: found.append(piece))
    assert isinstance(outcome, Completion)
    assert found == [(sample.index, sample.text) for sample in outcome.samples]
    assert found[0][1] == "4"
