"""Votes, best of n and scorers over the samples of other methods."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel

from esamp.engines.base import Completion, Engine, Request
from esamp.engines.hf import HFEngine
from esamp.errors import InactiveMethodError, InputError, OptionError, UnsupportedError
from esamp.methods import registry
from esamp.sampling import Sampling
from esamp.search.base import answer
from esamp.search.reward import load
from support import hf_models, hf_reference
from support.chat_model import CHAT, chat_engine
from support.scripted_engine import ScriptedEngine, tagged, texts

PROMPT = "Numbers 3 5 8 9 target 24"


def request(method: str, n: int = 4, **options: Any) -> Request:
    given = {name: options.pop(name) for name in ("prompt", "seed", "sampling") if name in options}
    parsed = registry.get(method).options.parse(options)
    return Request("r", method=method, n=n, options=parsed, **(dict(prompt=PROMPT) | given))


def only(engine: Engine, search: Request) -> Completion:
    [completion] = answer(engine, [search])
    json.dumps(completion.details, allow_nan=False)
    assert completion.request is search
    [sample] = completion.samples
    assert sample.index == completion.details["winner"]
    assert sample.text == completion.details["texts"][sample.index]
    return completion


# ---- votes


TEXTS = ["It is 5.\nAnswer: 7", "Answer: 5 ", "who\nknows", r"\boxed{5.0}", "Answer: 07", "hm\nAnswer: 9"]


def test_the_majority_wins_and_ties_go_to_the_first_drawn() -> None:
    completion = only(ScriptedEngine(TEXTS), request("majority_vote", n=6))
    assert completion.samples[0].text == TEXTS[0]
    assert completion.details["keys"] == ["7", "5", None, "5", "7", "9"]
    assert completion.details["votes"] == [
        {"answer": "7", "votes": 2, "weight": 2.0},
        {"answer": "5", "votes": 2, "weight": 2.0},
        {"answer": "9", "votes": 1, "weight": 1.0},
    ]
    assert completion.details["abstained"] == 1
    assert completion.details["texts"] == TEXTS
    assert completion.spent is not None
    assert (completion.spent.calls, completion.spent.tokens) == (6, sum(map(len, TEXTS)))


def test_a_scorer_breaks_the_tie_and_shows_the_best_sample_of_the_winner() -> None:
    completion = only(ScriptedEngine(TEXTS), request("majority_vote", n=6, tie_scorer="brevity"))
    assert completion.details["scores"] == [-18, -10, -9, -11, -10, -12]
    assert completion.samples[0].index == 1  # 5 has -21, 7 has -28


def test_without_any_vote_the_sample_with_the_best_score_wins() -> None:
    silent = ["a\nb", "c\nddd", "e\nf"]
    assert only(ScriptedEngine(silent), request("majority_vote", n=3)).details["winner"] == 0
    completion = only(ScriptedEngine(silent), request("majority_vote", n=3, tie_scorer="length"))
    assert (completion.details["winner"], completion.details["votes"]) == (1, [])
    assert completion.details["abstained"] == 3


def test_the_option_answer_selects_the_reading() -> None:
    engine = ScriptedEngine(["one 1\ntwo 2", "one 1\ntwo 3", "x\ntwo 2"])
    assert only(engine, request("majority_vote", n=3, answer="number")).details["keys"] == ["2", "3", "2"]
    assert only(engine, request("majority_vote", n=3, answer="line")).details["keys"] == ["two 2", "two 3", "two 2"]
    assert only(engine, request("majority_vote", n=3, answer="text")).details["winner"] == 0


def test_weights_change_the_winner() -> None:
    engine = ScriptedEngine(["Answer: 7", "Answer: 7", "of course it is\nAnswer: 5"])
    assert only(engine, request("majority_vote", n=3)).details["winner"] == 0
    scores = dict(scorer="length", weighting="score")
    completion = only(engine, request("weighted_vote", n=3, **scores))  # lengths 9, 9 and 25
    assert completion.details["weights"] == [0.36, 0.36, 1.0]
    assert completion.details["winner"] == 2
    assert [each["weight"] for each in completion.details["votes"]] == pytest.approx([1.0, 0.72])
    ranked = only(engine, request("weighted_vote", n=3, scorer="length", weighting="rank"))
    assert ranked.details["weights"] == pytest.approx([2 / 3, 1 / 3, 1.0])
    assert ranked.details["winner"] == 2  # 7 and 5 have a weight of 1 each; the sums of scores are 18 and 25
    alike = only(engine, request("weighted_vote", n=3, scorer="length", weighting="rank", rank_power=0.0))
    assert alike.details["winner"] == 0
    soft = only(engine, request("weighted_vote", n=3, scorer="length"))
    assert soft.details["weights"] == pytest.approx([math.exp(-16), math.exp(-16), 1.0])


def test_a_single_sample_wins_with_any_text() -> None:
    for method in ("majority_vote", "weighted_vote", "best_of_n"):
        scorer = "tie_scorer" if method == "majority_vote" else "scorer"
        completion = only(ScriptedEngine(["\0\ud800<x>"]), request(method, n=1, **{scorer: "length"}))
        assert completion.samples[0].text == "\0\ud800<x>"


# ---- best of n, and scorers of texts


def test_best_of_n_takes_the_highest_score() -> None:
    engine = ScriptedEngine(["aa", "bbb", "ccc", "d", "aa"])
    longest = only(engine, request("best_of_n", n=5, scorer="length"))
    assert (longest.samples[0].text, longest.details["scores"]) == ("bbb", [2, 3, 3, 1, 2])
    assert only(engine, request("best_of_n", n=5, scorer="brevity")).samples[0].text == "d"
    vowels = only(engine, request("best_of_n", n=5, scorer="function:support.scorers:vowels"))
    assert (vowels.details["winner"], vowels.details["scores"]) == (0, [2, 0, 0, 0, 2])


def test_samples_without_a_finite_score_come_last() -> None:
    engine = ScriptedEngine(["xxxxx", "y", "ab", "abc"])
    completion = only(engine, request("best_of_n", scorer="function:support.scorers:length_or_not_finite"))
    assert completion.details["scores"] == [None, None, 2, 3]
    assert (completion.details["winner"], completion.details["unscored"]) == (3, 2)
    hopeless = only(
        ScriptedEngine(["x", "y"]), request("best_of_n", n=2, scorer="function:support.scorers:length_or_not_finite")
    )
    assert (hopeless.details["winner"], hopeless.details["unscored"]) == (0, 2)
    voted = only(
        engine, request("weighted_vote", scorer="function:support.scorers:length_or_not_finite", weighting="score")
    )
    assert voted.details["weights"] == pytest.approx([0, 0, 2 / 3, 1])


@pytest.mark.parametrize(
    ("scorer", "message"),
    [
        ("function:support.scorers:too_few", "must return a list of 4 numbers"),
        ("function:support.scorers:words", "must return a list of 4 numbers"),
        ("function:support.scorers:nothing", "must return a list of 4 numbers"),
        ("function:support.scorers:missing", "cannot be imported"),
        ("function:no_such_module:f", "cannot be imported"),
        ("function:support.scorers:NOT_A_FUNCTION", "is int, not a function"),
    ],
)
def test_an_invalid_scorer_function_is_an_error(scorer: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        only(ScriptedEngine(["a", "b", "c", "d"]), request("best_of_n", scorer=scorer))


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("best_of_n", dict(scorer="best"), "'scorer' = 'best': choose from length, brevity, logprob"),
        ("best_of_n", dict(scorer="function:os"), "choose from"),
        ("best_of_n", dict(scorer="reward:"), "choose from"),
        ("best_of_n", dict(over="majority_vote"), "a selection cannot run under this method"),
        ("majority_vote", dict(over="best_of_n"), "a selection cannot run under this method"),
        ("majority_vote", dict(over="nothing"), "unknown method 'nothing'"),
        ("majority_vote", dict(over="guided", over_options=dict(concepts=0)), "over 'guided': option 'concepts' = 0"),
        ("majority_vote", dict(tie_scorer="best"), "'tie_scorer' = 'best': choose from length"),
        ("majority_vote", dict(answer="last"), "'answer' = 'last': expected one of"),
        ("weighted_vote", dict(weighting="log"), "weighting"),
        ("weighted_vote", dict(scorer=None), "scorer"),
        ("weighted_vote", dict(rank_power=-1.0), "rank_power"),
    ],
    ids=str,
)
def test_an_invalid_option_is_named_in_the_error(method: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        registry.get(method).options.parse(options)


def test_a_vote_can_run_over_a_search() -> None:
    script = [tagged(("Answer: 7", 0.5), ("Answer: 5", 0.25), ("Answer: 5.0", 0.25))]
    completion = only(
        ScriptedEngine(script), request("majority_vote", n=3, over="verbalized", over_options=dict(answers_per_call=3))
    )
    assert completion.samples[0].text == "Answer: 5"
    assert completion.details["over_details"]["stated"] == [0.5, 0.25, 0.25]
    assert completion.cost.calls == 1
    assert completion.cost.tokens == len(script[0])


@pytest.mark.parametrize("method", ["verbalized", "guided", "majority_vote", "best_of_n"])
def test_an_inner_method_that_never_acts_is_an_error(method: str) -> None:
    """The scripted engine never steers, and its samples are long enough for that to be an error."""
    scored = dict(scorer="length") if method == "best_of_n" else {}
    with pytest.raises(InactiveMethodError, match="never did"):
        only(ScriptedEngine(["abcdef"]), request(method, over="esamp", **scored))


# ---- real models


@pytest.fixture(scope="module")
def embedded() -> HFEngine:
    return HFEngine.load()


@pytest.mark.parametrize("scorer", ["logprob", "logprob_sum", "self_certainty"])
def test_likelihood_scorers_equal_their_definitions(embedded: HFEngine, scorer: str) -> None:
    search = request("best_of_n", n=3, scorer=scorer, sampling=Sampling(max_tokens=10))
    completion = only(embedded, search)
    [plain] = embedded.generate([request("vanilla", n=3, sampling=search.sampling)])
    assert completion.details["texts"] == texts(plain)
    scores = completion.details["scores"]
    assert scores[completion.details["winner"]] == max(scores)
    prompt = embedded.tokenizer(PROMPT).input_ids
    measured = [hf_reference.likelihood(embedded.model, prompt, sample.token_ids) for sample in plain.samples]
    expected = {
        "logprob": [total / len(s.token_ids) for (total, *_), s in zip(measured, plain.samples, strict=True)],
        "logprob_sum": [total for total, *_ in measured],
        "self_certainty": [certainty for _, certainty, _ in measured],
    }
    assert scores == pytest.approx(expected[scorer], rel=1e-4)
    assert completion.cost.calls == 3
    assert completion.cost.seconds >= completion.details["scoring_seconds"] > 0


@pytest.mark.slow
def test_a_vote_over_esamp_uses_the_samples_of_esamp(embedded: HFEngine) -> None:
    """Countdown answers are compared by their canonical forms, and the samples equal those of esamp by itself."""
    options = dict(over="esamp", over_options=dict(beta=0.5))
    search = request(
        "weighted_vote", n=8, prompt="Numbers 3 5 8 9 target 24", sampling=Sampling(max_tokens=384), **options
    )
    completion = only(embedded, search)
    assert completion.telemetry["rows_steered"] > 0
    esamp = registry.get("esamp").options.parse(dict(beta=0.5))
    [plain] = embedded.generate([Request("r", search.prompt, 8, search.sampling, "esamp", esamp)])
    assert completion.details["texts"] == texts(plain)
    assert any(completion.details["keys"])
    for text, key in zip(completion.details["texts"], completion.details["keys"], strict=True):
        assert (key is not None) == ("Answer: " in text)
    assert completion.details["keys"][completion.details["winner"]] == completion.details["votes"][0]["answer"]


def test_log_probabilities_of_a_chat_model_are_negative() -> None:
    search = request("majority_vote", n=3, prompt=CHAT, tie_scorer="logprob", sampling=Sampling(max_tokens=8))
    completion = only(chat_engine(), search)
    assert all(score < 0 for score in completion.details["scores"])


def test_an_engine_that_cannot_score_names_the_alternatives() -> None:
    with pytest.raises(
        UnsupportedError, match=r"'logprob': .*use the engine 'hf' or 'vllm'. Scorers without logits: length"
    ):
        only(ScriptedEngine(["a"]), request("best_of_n", n=2))


# ---- reward models


def save_reward_model(folder: Path, *, labels: int = 1, template: bool = True) -> PreTrainedModel:
    torch.manual_seed(3)
    config = AutoConfig.for_model("llama", **hf_models.DECODER, num_labels=labels)
    model = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32).eval()
    tokenizer = hf_models.small_tokenizer()
    if template:
        tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}|{% endfor %}"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model


ANSWERS = ["pine", "an oak, of course", "elm", "pine", "a weeping willow", "yew", "", "ash", "fir", "fig", "a spruce"]


@pytest.mark.parametrize("prompt", ["Name a tree: ", CHAT], ids=["plain", "chat"])
def test_reward_scores_equal_the_output_of_the_classifier(tmp_path: Path, prompt: Any) -> None:
    model = save_reward_model(tmp_path)
    search = request("best_of_n", n=len(ANSWERS), prompt=prompt, scorer=f"reward:{tmp_path}", scorer_device="cpu")
    completion = only(ScriptedEngine(ANSWERS), search)
    tokenizer = hf_models.small_tokenizer()
    for text, found in zip(ANSWERS, completion.details["scores"], strict=True):
        whole = f"system: Be brief.|user: Name a tree.|assistant: {text}|" if prompt is CHAT else f"{prompt}{text}"
        ids = torch.tensor([tokenizer(whole, add_special_tokens=False).input_ids])
        with torch.no_grad():  # the head applied to the last token's hidden state, one text at a time
            expected = model.score(model.model(input_ids=ids).last_hidden_state[:, -1])
        assert found == pytest.approx(float(expected), rel=1e-4)
    scores = completion.details["scores"]
    assert len(set(scores)) == len(ANSWERS) - 1  # "pine" twice
    assert completion.details["winner"] == scores.index(max(scores))


def test_padding_does_not_change_the_scores_of_a_bidirectional_reward_model(tmp_path: Path) -> None:
    torch.manual_seed(3)
    shape = dict(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, initializer_range=0.5
    )
    config = AutoConfig.for_model("bert", vocab_size=hf_models.VOCAB, pad_token_id=hf_models.PAD, num_labels=1, **shape)
    model = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32).eval()
    model.save_pretrained(tmp_path)
    tokenizer = hf_models.small_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    found = load(str(tmp_path), "cpu")("Name a tree: ", ANSWERS)
    for text, score in zip(ANSWERS, found, strict=True):
        with torch.no_grad():
            expected = model(input_ids=torch.tensor([tokenizer(f"Name a tree: {text}").input_ids])).logits
        assert score == pytest.approx(float(expected), rel=1e-4)


def test_errors_of_unusable_reward_models_name_the_cause(tmp_path: Path) -> None:
    save_reward_model(tmp_path / "two", labels=2)
    save_reward_model(tmp_path / "bare", template=False)
    engine = ScriptedEngine(["a", "b"])
    with pytest.raises(OptionError, match="has 2 outputs: a reward is one number"):
        only(engine, request("best_of_n", scorer=f"reward:{tmp_path / 'two'}"))
    with pytest.raises(InputError, match="no chat template: give a plain prompt"):
        only(engine, request("best_of_n", prompt=CHAT, scorer=f"reward:{tmp_path / 'bare'}"))
    with pytest.raises(
        InputError, match="a text of 301 tokens with its prompt exceeds the reward model's context of 256"
    ):
        only(engine, request("best_of_n", prompt="x" * 300, scorer=f"reward:{tmp_path / 'bare'}"))
    with pytest.raises(InputError, match="cannot be loaded"):
        only(engine, request("best_of_n", scorer=f"reward:{tmp_path / 'none'}"))
    with pytest.raises(OptionError, match="device = 'tpu'"):
        only(engine, request("best_of_n", scorer=f"reward:{tmp_path / 'bare'}", scorer_device="tpu"))


def test_a_reward_model_is_loaded_once(tmp_path: Path) -> None:
    save_reward_model(tmp_path)
    assert load(str(tmp_path), "cpu") is load(str(tmp_path), "cpu")
    load.cache_clear()
