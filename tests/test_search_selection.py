"""Votes and best of n over the samples of other methods, and the scorers."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel

import hf_models
from esamp.engines.base import Completion, Engine, Request, Sample
from esamp.engines.hf import HFEngine
from esamp.engines.hf import score as hf_score
from esamp.errors import InactiveMethodError, InputError, OptionError, UnsupportedError
from esamp.methods import registry
from esamp.sampling import Sampling
from esamp.search.base import answer
from esamp.search.reward import load
from scripted import ScriptedEngine
from test_search_verbalized import CHAT, chat_model, tagged, texts

PROMPT = "Numbers 3 5 8 9 target 24"


def request(method: str, n: int = 4, **options: Any) -> Request:
    given = {name: options.pop(name) for name in ("prompt", "seed", "sampling") if name in options}
    parsed = registry.get(method).options.parse(options)
    return Request("r", method=method, n=n, options=parsed, **(dict(prompt=PROMPT) | given))


def only(engine: Engine, asked: Request) -> Completion:
    [completion] = answer(engine, [asked])
    json.dumps(completion.details, allow_nan=False)
    assert completion.request is asked
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


def test_nobody_votes() -> None:
    silent = ["a\nb", "c\nddd", "e\nf"]
    assert only(ScriptedEngine(silent), request("majority_vote", n=3)).details["winner"] == 0
    completion = only(ScriptedEngine(silent), request("majority_vote", n=3, tie_scorer="length"))
    assert (completion.details["winner"], completion.details["votes"]) == (1, [])
    assert completion.details["abstained"] == 3


def test_readings_are_an_option() -> None:
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


def test_one_sample_is_chosen_whatever_it_says() -> None:
    for method in ("majority_vote", "weighted_vote", "best_of_n"):
        scorer = "tie_scorer" if method == "majority_vote" else "scorer"
        completion = only(ScriptedEngine(["\0\ud800<x>"]), request(method, n=1, **{scorer: "length"}))
        assert completion.samples[0].text == "\0\ud800<x>"


# ---- best of n, and scorers of texts


def test_the_best_sample_is_chosen() -> None:
    engine = ScriptedEngine(["aa", "bbb", "ccc", "d", "aa"])
    longest = only(engine, request("best_of_n", n=5, scorer="length"))
    assert (longest.samples[0].text, longest.details["scores"]) == ("bbb", [2, 3, 3, 1, 2])
    assert only(engine, request("best_of_n", n=5, scorer="brevity")).samples[0].text == "d"
    vowels = only(engine, request("best_of_n", n=5, scorer="function:scripted:vowels"))
    assert (vowels.details["winner"], vowels.details["scores"]) == (0, [2, 0, 0, 0, 2])


def test_scores_that_are_no_numbers_come_last() -> None:
    engine = ScriptedEngine(["xxxxx", "y", "ab", "abc"])
    completion = only(engine, request("best_of_n", scorer="function:scripted:strange"))
    assert completion.details["scores"] == [None, None, 2, 3]
    assert (completion.details["winner"], completion.details["unscored"]) == (3, 2)
    hopeless = only(ScriptedEngine(["x", "y"]), request("best_of_n", n=2, scorer="function:scripted:strange"))
    assert (hopeless.details["winner"], hopeless.details["unscored"]) == (0, 2)
    voted = only(engine, request("weighted_vote", scorer="function:scripted:strange", weighting="score"))
    assert voted.details["weights"] == pytest.approx([0, 0, 2 / 3, 1])


@pytest.mark.parametrize(
    ("scorer", "message"),
    [
        ("function:scripted:too_few", "must return a list of 4 numbers"),
        ("function:scripted:words", "must return a list of 4 numbers"),
        ("function:scripted:nothing", "must return a list of 4 numbers"),
        ("function:scripted:missing", "cannot be imported"),
        ("function:no_such_module:f", "cannot be imported"),
        ("function:scripted:NOT_A_FUNCTION", "is int, not a function"),
    ],
)
def test_functions_that_do_not_score(scorer: str, message: str) -> None:
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
def test_bad_options_are_named_before_anything_runs(method: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        registry.get(method).options.parse(options)


def test_over_a_search() -> None:
    script = [tagged(("Answer: 7", 0.5), ("Answer: 5", 0.25), ("Answer: 5.0", 0.25))]
    completion = only(
        ScriptedEngine(script), request("majority_vote", n=3, over="verbalized", over_options=dict(answers_per_call=3))
    )
    assert completion.samples[0].text == "Answer: 5"
    assert completion.details["over_details"]["stated"] == [0.5, 0.25, 0.25]
    assert completion.cost.calls == 1
    assert completion.cost.tokens == len(script[0])


@pytest.mark.parametrize("method", ["verbalized", "guided", "majority_vote", "best_of_n"])
def test_a_method_underneath_that_never_acted_is_no_answer(method: str) -> None:
    """A scripted engine explores nothing, and its samples are long enough for it to show."""
    scored = dict(scorer="length") if method == "best_of_n" else {}
    with pytest.raises(InactiveMethodError, match="never did"):
        only(ScriptedEngine(["abcdef"]), request(method, over="esamp", **scored))


# ---- real models


@pytest.fixture(scope="module")
def embedded() -> HFEngine:
    return HFEngine.load()


def by_definition(engine: HFEngine, prompt: str, sample: Sample) -> tuple[float, float, float]:
    """Sum of log p, mean KL(uniform || model), mean entropy, one token after the other, in float64."""
    ids = [*engine.tokenizer(prompt).input_ids, *sample.token_ids]
    start = len(ids) - len(sample.token_ids)
    total, certainty, entropy = 0.0, 0.0, 0.0
    for place in range(start, len(ids)):
        with torch.no_grad():
            logits = engine.model(input_ids=torch.tensor([ids[:place]])).logits[0, -1].double()
        p = logits.exp() / logits.exp().sum()
        total += math.log(p[ids[place]])
        certainty += float((-math.log(len(p)) - p.log()).mean())
        entropy -= sum(float(q) * math.log(q) for q in p if q > 0)
    return total, certainty / len(sample.token_ids), entropy / len(sample.token_ids)


def test_likelihoods_are_those_of_the_definition(embedded: HFEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = request("vanilla", n=3, sampling=Sampling(max_tokens=12, temperature=1.5))
    [drawn] = embedded.generate([asked])
    short = replace(drawn.samples[0], token_ids=drawn.samples[0].token_ids[:5])
    samples = [*drawn.samples, short, drawn.samples[0]]
    found = embedded.score(asked, samples, distribution=True)
    monkeypatch.setattr(hf_score, "MAX_LOGITS", 1)
    monkeypatch.setattr(hf_score, "POSITIONS", 5)
    alone = embedded.score(asked, samples, distribution=True)
    for sample, one, other in zip(samples, found, alone, strict=True):
        total, certainty, entropy = by_definition(embedded, PROMPT, sample)
        for each in (one, other):
            assert each.entropy == pytest.approx(entropy, rel=1e-4)
            assert each.total == pytest.approx(total, rel=1e-4)
            assert each.mean == pytest.approx(total / len(sample.token_ids), rel=1e-4)
            assert each.certainty == pytest.approx(certainty, rel=1e-4)


def test_texts_without_tokens_are_encoded_and_empty_ones_have_no_likelihood(embedded: HFEngine) -> None:
    asked = request("vanilla", n=1, sampling=Sampling(max_tokens=12))
    [drawn] = embedded.generate([asked])
    [written] = drawn.samples
    bare, empty = Sample(0, written.text, (), "stop"), Sample(0, "", (), "stop")
    [one, other, none] = embedded.score(asked, [written, bare, empty])
    assert one == other
    assert math.isnan(none.total)
    assert math.isnan(none.mean)


@pytest.mark.parametrize("scorer", ["logprob", "logprob_sum", "self_certainty"])
def test_the_likeliest_of_the_embedded_models_samples(embedded: HFEngine, scorer: str) -> None:
    asked = request("best_of_n", n=3, scorer=scorer, sampling=Sampling(max_tokens=10))
    completion = only(embedded, asked)
    [plain] = embedded.generate([request("vanilla", n=3, sampling=asked.sampling)])
    assert completion.details["texts"] == texts(plain)
    scores = completion.details["scores"]
    assert scores[completion.details["winner"]] == max(scores)
    measured = [by_definition(embedded, PROMPT, sample) for sample in plain.samples]
    wanted = {
        "logprob": [total / len(s.token_ids) for (total, *_), s in zip(measured, plain.samples, strict=True)],
        "logprob_sum": [total for total, *_ in measured],
        "self_certainty": [certainty for _, certainty, _ in measured],
    }
    assert scores == pytest.approx(wanted[scorer], rel=1e-4)
    assert completion.cost.calls == 3
    assert completion.cost.seconds >= completion.details["scoring_seconds"] > 0


def test_votes_of_the_embedded_model_over_an_exploring_method(embedded: HFEngine) -> None:
    """Countdown answers vote by their canonical forms; each sample is the one that the method gives by itself."""
    options = dict(over="esamp", over_options=dict(beta=0.5))
    asked = request(
        "weighted_vote", n=8, prompt="Numbers 3 5 8 9 target 24", sampling=Sampling(max_tokens=384), **options
    )
    completion = only(embedded, asked)
    assert completion.telemetry["rows_steered"] > 0
    esamp = registry.get("esamp").options.parse(dict(beta=0.5))
    [plain] = embedded.generate([Request("r", asked.prompt, 8, asked.sampling, "esamp", esamp)])
    assert completion.details["texts"] == texts(plain)
    assert any(completion.details["keys"])
    for text, key in zip(completion.details["texts"], completion.details["keys"], strict=True):
        assert (key is not None) == ("Answer: " in text)
    assert completion.details["keys"][completion.details["winner"]] == completion.details["votes"][0]["answer"]


def test_a_chat_model() -> None:
    asked = request("majority_vote", n=3, prompt=CHAT, tie_scorer="logprob", sampling=Sampling(max_tokens=8))
    completion = only(chat_model(), asked)
    assert all(score < 0 for score in completion.details["scores"])


def test_an_engine_that_cannot_tell_likelihoods_says_what_to_do() -> None:
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
def test_a_reward_model(tmp_path: Path, prompt: Any) -> None:
    model = save_reward_model(tmp_path)
    asked = request("best_of_n", n=len(ANSWERS), prompt=prompt, scorer=f"reward:{tmp_path}", scorer_device="cpu")
    completion = only(ScriptedEngine(ANSWERS), asked)
    tokenizer = hf_models.small_tokenizer()
    for text, found in zip(ANSWERS, completion.details["scores"], strict=True):
        whole = f"system: Be brief.|user: Name a tree.|assistant: {text}|" if prompt is CHAT else f"{prompt}{text}"
        ids = torch.tensor([tokenizer(whole, add_special_tokens=False).input_ids])
        with torch.no_grad():  # the head on the last token's state, each text by itself
            expected = model.score(model.model(input_ids=ids).last_hidden_state[:, -1])
        assert found == pytest.approx(float(expected), rel=1e-4)
    scores = completion.details["scores"]
    assert len(set(scores)) == len(ANSWERS) - 1  # "pine" twice
    assert completion.details["winner"] == scores.index(max(scores))


def test_a_reward_model_that_reads_both_ways_does_not_read_the_padding(tmp_path: Path) -> None:
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


def test_reward_models_that_cannot_be_used(tmp_path: Path) -> None:
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
