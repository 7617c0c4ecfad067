"""The model in the package: it loads, its tokenizer is faithful, and it solves problems that it never saw."""

from __future__ import annotations

import copy
import json
import random
from functools import cache
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from esamp.models import EMBEDDED, embedded_path
from esamp.models.evaluate import run, summarise
from esamp.models.sampling import growing_cache, sample
from esamp.models.scale import unit_residual_stream
from esamp.models.train import CHECKPOINT, TYPICAL, Trainer, parse, schedule
from esamp.tasks.countdown import Countdown, Rules
from esamp.tasks.countdown.trace import Habits, random_trace


@cache
def load() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    model = AutoModelForCausalLM.from_pretrained(embedded_path(), dtype=torch.float32).eval()
    return model, AutoTokenizer.from_pretrained(embedded_path())


def test_it_is_small_and_ordinary() -> None:
    folder = embedded_path()
    assert folder.name == EMBEDDED
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 15e6
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["hidden_size"] // config["num_attention_heads"] % 32 == 0
    assert config["tie_word_embeddings"] is False
    model, tokenizer = load()
    assert model.get_output_embeddings().weight.shape == (len(tokenizer), config["hidden_size"])


@pytest.mark.parametrize("seed", range(5))
def test_tokenizer_returns_a_trace_unchanged(seed: int) -> None:
    _, tokenizer = load()
    _, words = random_trace(random.Random(seed), Rules(), Habits())
    ids = [tokenizer.bos_token_id, *(tokenizer.convert_tokens_to_ids(word) for word in words)]
    text = tokenizer.decode(ids, skip_special_tokens=True)
    assert tokenizer(text).input_ids == ids
    assert tokenizer.unk_token_id not in ids
    assert text == tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True)
    assert "( " not in text
    assert " \n" not in text


def test_tokenizer_takes_what_people_type() -> None:
    _, tokenizer = load()
    expected = tokenizer("Numbers 3 5 8 9 target 24").input_ids
    for typed in ("numbers: 3, 5, 8, 9; target: 24", "Numbers 3 5  8 9\tTarget = 24.", " NUMBERS 3,5,8,9 target 24?"):
        assert tokenizer(typed).input_ids == expected
    assert tokenizer("Answer:(3+5)×2").input_ids == tokenizer("Answer: (3 + 5) * 2").input_ids
    assert tokenizer("Numbers 3 and 5000 target 24").input_ids.count(tokenizer.unk_token_id) == 2
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "Numbers 3 5 8 9 target 24"}], return_dict=False)
    assert chat == expected


def test_growing_cache_changes_nothing() -> None:
    model, tokenizer = load()
    ids = tokenizer(["Numbers 3 5 8 9 target 24\ntry 9 * 5 = 45"] * 3, return_tensors="pt").input_ids
    with torch.inference_mode():
        expected = model(input_ids=ids).logits
        cache = growing_cache(model)
        logits = [model(input_ids=part, past_key_values=cache).logits for part in ids.split(5, dim=1)]
    torch.testing.assert_close(torch.cat(logits, 1), expected, atol=1e-4, rtol=1e-4)


def test_samples_stop_at_the_end_or_at_the_limit() -> None:
    model, tokenizer = load()
    prompts = tokenizer(["Numbers 3 5 8 9 target 24"] * 4, return_tensors="pt").input_ids
    texts = sample(model, prompts, 60, torch.Generator().manual_seed(0))
    for text in texts:
        assert len(text) + prompts.shape[1] == 60 or text[-1] == tokenizer.eos_token_id
        assert tokenizer.eos_token_id not in text[:-1]


@pytest.mark.slow
def test_it_solves_held_out_problems_and_explores() -> None:
    model, tokenizer = load()
    items = Countdown().items("test", 10)
    report = summarise(run(model, tokenizer, items, 8, batch=80, seed=0), 0.0)
    assert report.pass_1 > 0.1
    assert report.unsolved <= 5
    assert report.parsed > 0.5
    assert report.trace_tokens > 100


@pytest.mark.slow
def test_training_saves_a_usable_model_and_resumes(tmp_path: Path) -> None:
    small = ["--out", str(tmp_path), "--width", "32", "--heads", "1", "--layers", "1", "--tokens", "1024"]
    quick = [*small, "--device", "cpu", "--no-compile", "--minutes"]
    Trainer(parse([*quick, "0.02"])).train()
    first = torch.load(tmp_path / CHECKPOINT, weights_only=True)["progress"]
    resumed = Trainer(parse([*quick, str(first[0] / 60 + 0.01), "--resume"]))
    assert (resumed.seconds, resumed.step, resumed.tokens) == first[:3]
    resumed.train()
    assert resumed.step > first[1]
    assert resumed.seconds > first[0]
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    ids = tokenizer(TYPICAL, return_tensors="pt").input_ids
    unit_residual_stream(resumed.model, ids)
    expected = resumed.model.state_dict()
    assert all(torch.equal(weight, expected[name].bfloat16()) for name, weight in model.state_dict().items())
    assert AutoTokenizer.from_pretrained(tmp_path)("Numbers 3 target 24").input_ids[0] == model.config.bos_token_id


def test_the_residual_stream_is_scaled_without_changing_a_bit() -> None:
    model, tokenizer = load()
    ids = tokenizer(TYPICAL, return_tensors="pt").input_ids
    before = model(ids, output_hidden_states=True)
    assert 0.5 < before.hidden_states[1].square().mean().sqrt() < 2
    loud = copy.deepcopy(model)
    for name, weight in loud.named_parameters():
        if "embed_tokens" in name or "o_proj" in name or "down_proj" in name:
            weight.data *= 64
    for name, module in loud.named_modules():
        if name.endswith("norm"):
            module.variance_epsilon *= 64**2
    assert torch.equal(loud(ids).logits, before.logits)
    assert unit_residual_stream(loud, ids) == 6
    after = loud(ids, output_hidden_states=True)
    assert torch.equal(after.logits, before.logits)
    assert torch.equal(after.hidden_states[1], before.hidden_states[1])


def test_learning_rate_schedule() -> None:
    assert [schedule(x) for x in (0.0, 0.01, 0.02, 0.4, 0.7, 1.0, 1.1)] == pytest.approx([0, 0.5, 1, 1, 0.5, 0, 0])
