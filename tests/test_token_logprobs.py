"""`Sample.logprobs` and `Sample.reference_logprobs` on transformers, against a replay in float64."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import esamp
from esamp import ESampConfig, HFEngine, Request, Sample, Sampling
from esamp.engines.hf.token_logprobs import TokenLogprobs
from esamp.errors import OptionError, UnsupportedError
from support.hf_models import EOS, count_hooks, small, small_tokenizer
from support.steered_logprobs import CASES, Setting, in_float64, replay

PROMPT = "Hello there"
STEERED = ESampConfig(beta=1.0, distiller="mean")


def draw(method: str, setting: Setting, *, token_logprobs: bool = True, **options: Any) -> Sequence[Sample]:
    engine = HFEngine(small("llama"), small_tokenizer(), token_logprobs=token_logprobs, **options)
    sampling = Sampling(max_tokens=12, temperature=setting.temperature, top_k=setting.top_k)
    own = STEERED if method == "esamp" else None
    return next(engine.generate([Request("x", PROMPT, 5, sampling, method, own, seed=3)])).samples


def ratios(sample: Sample) -> Tensor:
    """Reference over sampling distribution `[tokens]`, which an importance weight is."""
    assert sample.logprobs is not None
    assert sample.reference_logprobs is not None
    return (torch.tensor(sample.reference_logprobs).double() - torch.tensor(sample.logprobs).double()).exp()


@pytest.mark.parametrize("case", CASES)
def test_both_log_probabilities_and_their_ratio_equal_a_replay_in_float64(case: str) -> None:
    method, setting = CASES[case]
    samples = draw(method, setting)
    prompt = small_tokenizer()(PROMPT)["input_ids"]
    wanted = replay(in_float64(small("llama")), prompt, [sample.token_ids for sample in samples], setting)
    for sample, (drawn, own) in zip(samples, wanted, strict=True):
        torch.testing.assert_close(torch.tensor(sample.logprobs).double(), drawn, atol=2e-4, rtol=0)
        torch.testing.assert_close(torch.tensor(sample.reference_logprobs).double(), own, atol=2e-4, rtol=0)
        torch.testing.assert_close(ratios(sample), (own - drawn).exp(), atol=0, rtol=5e-4)
    if setting != Setting():
        assert max(float((ratios(sample) - 1).abs().max()) for sample in samples) > 0.05


@pytest.mark.parametrize("method", ["vanilla", "esamp"])
def test_keeping_log_probabilities_changes_no_sample_and_is_off_by_default(method: str) -> None:
    kept, plain = draw(method, Setting()), draw(method, Setting(), token_logprobs=False)
    assert [sample.token_ids for sample in kept] == [sample.token_ids for sample in plain]
    assert {sample.logprobs for sample in plain} == {sample.reference_logprobs for sample in plain} == {None}


def test_reference_log_probabilities_add_up_to_the_score_of_the_engine() -> None:
    engine = HFEngine(small("llama"), small_tokenizer(), token_logprobs=True)
    request = Request("x", PROMPT, 4, Sampling(max_tokens=12, temperature=0.6), "esamp+fire", seed=5)
    samples = next(engine.generate([request])).samples
    totals = [sum(sample.reference_logprobs or ()) for sample in samples]
    assert totals == pytest.approx([each.total for each in engine.score(request, samples)], rel=1e-4)


@pytest.mark.parametrize("method", ["vanilla", "esamp"])
def test_greedy_tokens_are_certain(method: str) -> None:
    samples = draw(method, Setting(temperature=0.0))
    assert all(value == 0.0 for sample in samples for value in sample.logprobs or (1.0,))
    assert any(value < -0.1 for sample in samples for value in sample.reference_logprobs or ())


def test_tokens_drawn_while_the_end_is_banned_are_renormalised_without_it() -> None:
    model, tokenizer = small("llama"), small_tokenizer()
    hooks = count_hooks(model)
    setting = Setting(beta=1.0, temperature=0.9, banned=(EOS,), least=9)
    inputs = tokenizer([PROMPT], return_tensors="pt")
    with esamp.explore(model, STEERED, token_logprobs=True) as run:
        arguments = dict(min_new_tokens=setting.least, max_new_tokens=10, do_sample=True, top_k=0, temperature=0.9)
        rows = run.generate(**inputs, num_return_sequences=4, **arguments)
    length = inputs["input_ids"].shape[1]
    tokens = [row[:10] for row in rows[:, length:].tolist()]
    wanted = replay(in_float64(model), inputs["input_ids"][0].tolist(), tokens, setting)
    for place, (drawn, own) in enumerate(wanted):
        torch.testing.assert_close(run.token_logprobs[0, place].double(), drawn, atol=2e-4, rtol=0)
        torch.testing.assert_close(run.token_logprobs[1, place].double(), own, atol=2e-4, rtol=0)
    assert count_hooks(model) == hooks


@pytest.mark.parametrize(("kept", "states"), [(False, 1), (True, 2)])
def test_the_second_projection_is_made_only_if_log_probabilities_are_kept(kept: bool, states: int) -> None:
    rows: list[int] = []

    def count(module: nn.Module, args: Any, logits: Tensor) -> None:
        rows.append(logits.shape[0])

    head = small("llama").get_output_embeddings()
    handle = head.register_forward_hook(count)
    try:
        draw("esamp", Setting(), token_logprobs=kept)
    finally:
        handle.remove()
    assert max(rows[2:]) == states * 5  # after the probe and prefill


@pytest.mark.parametrize("greedy", [False, True])
def test_a_step_reads_no_value_from_the_device(greedy: bool) -> None:
    """Tensors of the device `meta` have no values, so that any attempt to read one is an error."""
    recorder, tokens = TokenLogprobs(lambda: torch.empty(3, 7, device="meta")), torch.empty(3, device="meta")
    recorder.greedy = greedy
    scores = torch.empty(3, 7, device="meta")
    for reader in (recorder.own, recorder.drawn):
        assert reader(tokens, scores) is scores
    recorder.record(tokens.long())
    with pytest.raises(NotImplementedError):
        recorder.table()


@pytest.mark.parametrize("method", ["arithmetic", "esamp+without_replacement", "diverse_beam"])
def test_methods_that_choose_a_groups_tokens_together_are_refused(method: str) -> None:
    with pytest.raises(UnsupportedError, match="has no probability of its own"):
        draw(method, Setting())


def test_an_engine_is_loaded_with_them_by_name_and_a_server_is_refused() -> None:
    [sample] = esamp.load(token_logprobs=True).complete("Numbers 1 2 3 target 6", n=1, max_tokens=4).samples
    assert len(sample.logprobs or ()) == len(sample.token_ids)
    with pytest.raises(UnsupportedError, match="'openai' keeps no log-probabilities of tokens"):
        esamp.load("x", engine="openai", base_url="http://127.0.0.1:9/v1", token_logprobs=True)


def test_log_probabilities_that_were_not_kept_raise_an_error_that_names_the_argument() -> None:
    with esamp.explore(small("llama")) as run, pytest.raises(OptionError, match="token_logprobs=True"):
        _ = run.token_logprobs
