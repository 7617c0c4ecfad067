"""What cannot work is refused, with an error that says why and what to use instead; the `reference` candidate rule."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel, T5Config, T5ForConditionalGeneration

import esamp
from esamp import ESampConfig, Run
from esamp.errors import EsampError, InputError, OptionError, UnsupportedError
from esamp.methods.vanilla import VanillaOptions
from support.hf_models import AFTER_HEAD, PAD, VOCAB, count_hooks, small
from support.hf_reference import Ridge, reconstruct

PROMPT = torch.tensor([[5, 6, 7, 8, 9, 5, 6, 7, 8]])
both_calls = pytest.mark.parametrize("own_call", [False, True], ids=["model.generate", "run.generate"])


def encoder_decoder() -> PreTrainedModel:
    return T5ForConditionalGeneration(
        T5Config(vocab_size=VOCAB, d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=2, decoder_start_token_id=0)
    )


@pytest.mark.parametrize(
    ("make", "arguments", "kind", "message"),
    [
        (encoder_decoder, {}, UnsupportedError, "encoder-decoder: esamp needs a decoder-only model"),
        (lambda: AutoModel.from_config(small("llama").config), {}, UnsupportedError, "AutoModelForCausalLM"),
        (lambda: torch.compile(small("llama"), backend="eager"), {}, UnsupportedError, "the model as it was"),
        (lambda: small("llama"), {"method": "vanilla"}, OptionError, "generate()"),
        (lambda: small("llama"), {"method": "nothing"}, OptionError, "choose from"),
        (lambda: small("llama"), {"options": VanillaOptions()}, OptionError, "ESampConfig"),
        (lambda: small("llama"), {"options": ESampConfig(source_layer=4)}, UnsupportedError, "has 3 layers"),
        (lambda: small("llama"), {"options": ESampConfig(target_layer=9)}, UnsupportedError, "has 3 layers"),
        (lambda: small("llama"), {"samples_per_prompt": 0}, OptionError, "at least 1"),
        (lambda: small("llama"), {"slots": 0}, OptionError, "at least 1"),
    ],
)
def test_what_cannot_be_explored_is_refused_at_the_door(
    make: Callable[[], Any], arguments: dict[str, Any], kind: type[EsampError], message: str
) -> None:
    model = make()
    hooks = count_hooks(model)
    with pytest.raises(kind, match=message), esamp.explore(model, **arguments):
        pass
    assert count_hooks(model) == hooks


def call(run: Run, own_call: bool, **kwargs: Any) -> Any:
    return (run.generate if own_call else run.model.generate)(PROMPT, max_new_tokens=8, **kwargs)


@both_calls
@pytest.mark.parametrize("architecture", ["llama", "mamba", "lfm2"])
def test_beam_search_is_refused(architecture: str, own_call: bool) -> None:
    with pytest.raises(UnsupportedError, match="num_beams=1"), esamp.explore(small(architecture)) as run:
        call(run, own_call, num_beams=4)


@both_calls
def test_beams_of_the_generation_config_are_refused_unless_the_call_has_none(
    own_call: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small("llama")
    monkeypatch.setattr(model.generation_config, "num_beams", 3)
    with esamp.explore(model) as run:
        with pytest.raises(UnsupportedError, match="num_beams=1"):
            call(run, own_call)
        call(run, own_call, num_beams=1)
        assert run.telemetry()["updates"] > 0


def test_beam_search_is_refused_with_a_static_cache() -> None:
    with pytest.raises(UnsupportedError, match="num_beams=1"), esamp.explore(small("llama")) as run:
        call(run, False, num_beams=4, cache_implementation="static")


@both_calls
@pytest.mark.parametrize("by", ["assistant_model", "prompt_lookup_num_tokens"])
def test_assisted_decoding_is_refused(by: str, own_call: bool) -> None:
    assistant: Any = small("llama", num_hidden_layers=1) if by == "assistant_model" else 3
    with pytest.raises(UnsupportedError, match="assistant_model"), esamp.explore(small("llama")) as run:
        call(run, own_call, do_sample=False, **{by: assistant})


def test_a_custom_generate_of_the_user_s_own_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="custom_generate"), esamp.explore(small("llama")) as run:
        run.generate(PROMPT, custom_generate=lambda model, **kwargs: None)


def test_after_an_error_the_next_call_explores() -> None:
    model = small("llama")
    hooks = count_hooks(model)
    with esamp.explore(model, samples_per_prompt=2) as run:
        with pytest.raises(InputError):
            model.generate(PROMPT, max_new_tokens=4)
        with pytest.raises(UnsupportedError):
            run.generate(PROMPT, max_new_tokens=4, num_beams=2)
        for own_call in (False, True):
            call(run, own_call, do_sample=True, num_return_sequences=2, suppress_tokens=[PAD, 1])
        assert run.telemetry()["updates"] == 6 + 7
    assert count_hooks(model) == hooks


# ---- heads that are not plain


class PackedHead(nn.Module):
    """A head with int8 weights and a scale per row, as quantisation libraries keep them."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.scale = nn.Parameter(weight.abs().amax(1, keepdim=True) / 127, requires_grad=False)
        self.weight = nn.Parameter((weight / self.scale).round().to(torch.int8), requires_grad=False)

    def forward(self, states: Tensor) -> Tensor:
        return F.linear(states, self.weight * self.scale)


@both_calls
def test_a_quantised_head_explores_states_and_says_what_it_cannot(
    own_call: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small("llama")
    monkeypatch.setitem(model._modules, "lm_head", PackedHead(model.lm_head.weight.detach()))
    for signal in ("action", "both"):
        with pytest.raises(OptionError, match="quantised"), esamp.explore(model, ESampConfig(signal=signal)):
            pass
    with esamp.explore(model, samples_per_prompt=2, telemetry="full") as run:
        call(run, own_call, do_sample=True, num_return_sequences=2, suppress_tokens=[PAD, 1])
    told = run.telemetry()
    assert told["rows_steered"] > 0
    assert told["kl"] > 0
    assert told["cos_token"] != told["cos_token"]  # not measured


# ---- candidates = "reference"


def test_the_reference_rule_through_model_generate_is_refused() -> None:
    options = ESampConfig(candidates="reference")
    with esamp.explore(small("llama"), options) as run, pytest.raises(OptionError, match=r"run\.generate"):
        call(run, False, do_sample=True)


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "cohere"])
@pytest.mark.parametrize("filters", [{"top_k": 5}, {"top_k": 0, "top_p": 0.4}, {"top_k": 0, "min_p": 0.3}])
def test_the_reference_rule_by_hand(architecture: str, filters: dict[str, Any]) -> None:
    model, samples, temperature = small(architecture), 4, 0.7
    how = dict(do_sample=True, max_new_tokens=6, temperature=temperature, num_return_sequences=samples)
    with esamp.explore(
        model, ESampConfig(beta=2, features=0, candidates="reference"), samples_per_prompt=samples
    ) as run:
        out = run.generate(PROMPT, **how, **filters, return_dict_in_generate=True, output_scores=True)
    after = AFTER_HEAD.get(architecture, lambda logits: logits)
    expected = reconstruct(model, out.sequences, PROMPT.shape[1], samples, after, Ridge, 2)
    for scores, (fused, alone, _) in zip(out.scores[1:], expected, strict=False):
        kept = survivors((alone / temperature).softmax(-1), **filters)
        assert torch.equal(scores.isfinite(), kept)
        torch.testing.assert_close(scores[kept].double(), (fused / temperature)[kept], atol=2e-4, rtol=1e-4)


def survivors(p: Tensor, top_k: int, top_p: float = 1.0, min_p: float = 0.0) -> Tensor:
    """Which tokens each filter leaves, by its definition."""
    if top_k:
        return p >= p.topk(top_k).values[:, -1:]
    if min_p:
        return p >= min_p * p.amax(-1, keepdim=True)
    ahead = torch.stack([torch.where(row[None] > row[:, None], row[None], 0).sum(1) for row in p])
    return ahead < top_p
