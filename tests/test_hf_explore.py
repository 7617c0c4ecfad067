"""`explore` around generate calls of every kind: the same exploration whatever cache, processor or precision it is."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    CompileConfig,
    DynamicCache,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    StaticCache,
    StoppingCriteriaList,
)
from transformers.generation.streamers import BaseStreamer

import esamp
from esamp import ESampConfig, Run
from esamp.engines.hf import InactiveMethodWarning
from esamp.errors import OptionError
from support.hf_models import EOS, PAD, small

PROMPTS = torch.tensor([[5, 6, 7, 8, 9], [10, 11, 12, 13, 14]])
SAMPLES, TOKENS, ROWS = 3, 8, 6
ARGUMENTS: dict[str, Any] = dict(
    do_sample=True, max_new_tokens=TOKENS, num_return_sequences=SAMPLES, suppress_tokens=[PAD, EOS]
)
SCORES = dict(return_dict_in_generate=True, output_scores=True)
STRONG = ESampConfig(beta=4)

both_calls = pytest.mark.parametrize("own_call", [False, True], ids=["model.generate", "run.generate"])


def explored(
    model: PreTrainedModel,
    own_call: bool,
    *args: Any,
    options: ESampConfig = STRONG,
    telemetry: Any = None,
    **kwargs: Any,
) -> tuple[Any, Run]:
    """What one seeded generate call gives under exploration."""
    torch.manual_seed(5)
    with esamp.explore(model, options, samples_per_prompt=SAMPLES, telemetry=telemetry) as run:
        return (run.generate if own_call else model.generate)(*args, **(ARGUMENTS | kwargs)), run


def alone(model: PreTrainedModel, *args: Any, **kwargs: Any) -> Any:
    torch.manual_seed(5)
    return model.generate(*args, **(ARGUMENTS | kwargs))


def steps_counted(own_call: bool) -> int:
    """Steps learned from: plain hooks never see the tokens of the last one."""
    return TOKENS - 1 if own_call else TOKENS - 2


def same_bits(mine: Any, theirs: Any) -> bool:
    scores = zip(mine.scores, theirs.scores, strict=True)
    return torch.equal(mine.sequences, theirs.sequences) and all(torch.equal(a, b) for a, b in scores)


def compiled() -> CompileConfig:
    config = CompileConfig(fullgraph=False, backend="eager", mode=None)
    config._compile_all_devices = True
    return config


WAYS: dict[str, Callable[[PreTrainedModel], dict[str, Any]]] = {
    "GenerationConfig": lambda model: dict(generation_config=GenerationConfig(**ARGUMENTS, pad_token_id=PAD)),
    "no cache": lambda model: dict(use_cache=False),
    "static cache": lambda model: dict(cache_implementation="static"),
    "chunked prefill": lambda model: dict(prefill_chunk_size=3),
    "user's dynamic cache": lambda model: dict(past_key_values=DynamicCache(config=model.config)),
    "user's static cache": lambda model: dict(past_key_values=StaticCache(config=model.config, max_cache_len=32)),
}


@both_calls
@pytest.mark.parametrize("architecture", ["llama", "gemma2"])
@pytest.mark.parametrize("way", WAYS)
def test_exploration_is_the_same_whichever_way_the_model_runs(way: str, architecture: str, own_call: bool) -> None:
    model = small(architecture)
    expected, _ = explored(model, own_call, PROMPTS)
    arguments = WAYS[way](model)
    if "generation_config" in arguments:
        torch.manual_seed(5)
        with esamp.explore(model, STRONG, samples_per_prompt=SAMPLES) as run:
            got = (run.generate if own_call else model.generate)(PROMPTS, **arguments)
    else:
        got, run = explored(model, own_call, PROMPTS, **arguments)
    assert torch.equal(got, expected)
    assert run.telemetry()["updates"] == 2 * steps_counted(own_call)
    assert run.telemetry()["rows"] == ROWS * steps_counted(own_call)
    assert run.telemetry()["rows_steered"] == ROWS * (steps_counted(own_call) - 1)
    assert not torch.equal(got, alone(model, PROMPTS))


@both_calls
@pytest.mark.parametrize("way", ["no cache", "static cache", "chunked prefill"])
def test_beta_zero_keeps_the_bits_whichever_way_the_model_runs(way: str, own_call: bool) -> None:
    model = small("gpt2" if way == "no cache" else "llama")
    arguments = WAYS[way](model) | SCORES
    got, _ = explored(model, own_call, PROMPTS, options=ESampConfig(beta=0), **arguments)
    assert same_bits(got, alone(model, PROMPTS, **arguments))


@both_calls
def test_a_prompt_of_one_token_and_a_chunk_of_one_token(own_call: bool) -> None:
    model, prompt = small("llama"), PROMPTS[:1, :1]
    _, run = explored(model, own_call, prompt)
    assert run.telemetry()["rows"] == SAMPLES * steps_counted(own_call)
    if own_call:  # plain hooks cannot tell a last chunk of one token from a decode step
        expected, _ = explored(model, True, PROMPTS)
        chunked, run = explored(model, True, PROMPTS, prefill_chunk_size=4)
        assert torch.equal(chunked, expected)
        assert run.telemetry()["rows"] == ROWS * steps_counted(True)


@both_calls
def test_embeddings_instead_of_tokens(own_call: bool) -> None:
    model = small("llama")
    with torch.no_grad():
        embeddings = model.get_input_embeddings()(PROMPTS)
    expected, _ = explored(model, own_call, PROMPTS)
    got, run = explored(model, own_call, inputs_embeds=embeddings)
    assert torch.equal(got, expected[:, PROMPTS.shape[1] :])
    assert run.telemetry()["updates"] == 2 * steps_counted(own_call)


@both_calls
def test_padding_on_the_left_changes_nothing(own_call: bool) -> None:
    model = small("llama")
    short = torch.tensor([[PAD, PAD, 10, 11, 12]])
    mask = torch.tensor([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]])
    batch = torch.cat([PROMPTS[:1], short]).repeat_interleave(SAMPLES, 0)
    greedy = dict(do_sample=False, num_return_sequences=1)
    together, run = explored(
        model, own_call, batch, attention_mask=mask.repeat_interleave(SAMPLES, 0), pad_token_id=PAD, **greedy
    )
    for group, prompt in enumerate((PROMPTS[:1], short[:, 2:])):
        single, other = explored(model, own_call, prompt.repeat(SAMPLES, 1), **greedy)
        assert torch.equal(single[:, prompt.shape[1] :], together[group * SAMPLES : (group + 1) * SAMPLES, 5:])
        mine, theirs = run.telemetry(group), other.telemetry(0)
        assert mine == pytest.approx(theirs, rel=1e-3, nan_ok=True)


class Recorder(BaseStreamer):
    """A streamer that keeps what it is given."""

    def __init__(self) -> None:
        self.heard: list[Tensor] = []
        self.ended = False

    def put(self, value: Tensor) -> None:
        self.heard.append(value.reshape(-1))

    def end(self) -> None:
        self.ended = True


@both_calls
def test_a_streamer_hears_every_token(own_call: bool) -> None:
    streamer = Recorder()
    got, _ = explored(small("llama"), own_call, PROMPTS[:1], streamer=streamer, num_return_sequences=1 * SAMPLES)
    assert streamer.ended
    assert torch.equal(torch.stack(streamer.heard[1:], dim=1), got[:, PROMPTS.shape[1] :])


class OnlyEven(LogitsProcessor):
    """Lets even tokens pass, and remembers the logits it saw."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.seen.append(scores.clone())
        return scores.masked_fill(torch.arange(scores.shape[-1]) % 2 == 1, -torch.inf)


@both_calls
def test_processors_and_stopping_criteria_of_the_user_work_on_the_fused_logits(own_call: bool) -> None:
    def after_six(input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        return torch.full((len(input_ids),), input_ids.shape[1] >= PROMPTS.shape[1] + 6)

    even = OnlyEven()
    got, run = explored(
        small("llama"),
        own_call,
        PROMPTS,
        logits_processor=LogitsProcessorList([even]),
        stopping_criteria=StoppingCriteriaList([after_six]),
        return_dict_in_generate=True,
        output_logits=True,
    )
    assert got.sequences.shape[1] == PROMPTS.shape[1] + 6
    assert (got.sequences[:, PROMPTS.shape[1] :] % 2 == 0).all()
    for seen, fused in zip(even.seen, got.logits, strict=True):
        kept = ~seen.isneginf()
        assert torch.equal(seen[kept], fused[kept])
    assert run.telemetry()["updates"] == 2 * (5 if own_call else 4)


@both_calls
def test_greedy_decoding_explores_too(own_call: bool) -> None:
    model = small("llama")
    batch, greedy = PROMPTS.repeat_interleave(SAMPLES, 0), dict(do_sample=False, num_return_sequences=1)
    got, run = explored(model, own_call, batch, options=ESampConfig(preset="paper", beta=16), **greedy)
    assert run.telemetry()["rows_steered"] > 0
    assert not torch.equal(got, alone(model, batch, **greedy))


@both_calls
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("architecture", ["llama", "gemma2", "mamba"])
def test_half_precision(architecture: str, dtype: torch.dtype, own_call: bool) -> None:
    model = small(architecture, dtype)
    got, run = explored(model, own_call, PROMPTS, return_dict_in_generate=True, output_logits=True)
    assert all(logits.isfinite().all() for logits in got.logits)
    assert run.telemetry()["rows_steered"] == ROWS * (steps_counted(own_call) - 1)
    assert run.telemetry()["resets"] == 0
    zero, _ = explored(model, own_call, PROMPTS, options=ESampConfig(beta=0), **SCORES)
    assert same_bits(zero, alone(model, PROMPTS, **SCORES))


@both_calls
def test_basic_telemetry_gives_the_same_tokens_with_one_projection(own_call: bool) -> None:
    model = small("llama")
    full, _ = explored(model, own_call, PROMPTS, **SCORES)
    torch.manual_seed(5)
    rows: list[int] = []
    handle = model.lm_head.register_forward_hook(lambda module, args, out: rows.append(len(out)))
    with esamp.explore(model, STRONG, samples_per_prompt=SAMPLES, telemetry="basic") as run:
        rows.clear()
        got = (run.generate if own_call else model.generate)(PROMPTS, **ARGUMENTS, **SCORES)
    handle.remove()
    assert rows == [ROWS] * TOKENS
    assert torch.equal(got.sequences, full.sequences)
    assert run.telemetry()["rows_steered"] > 0


# ---- compiled code


@pytest.mark.slow
def test_compiled_decoding_explores_also_where_code_was_compiled_before() -> None:
    model = small("llama", num_hidden_layers=1)
    short = dict(max_new_tokens=5)
    how = dict(cache_implementation="static", compile_config=compiled()) | short
    try:
        before = alone(model, PROMPTS, **how)
        assert "_compiled_call" in vars(model)
        for own_call in (False, True):
            expected, _ = explored(model, own_call, PROMPTS, **short)
            got, run = explored(model, own_call, PROMPTS, **how)
            assert torch.equal(got, expected)
            assert run.telemetry()["rows_steered"] == ROWS * (3 if own_call else 2)
        assert not torch.equal(got, before)
        assert torch.equal(alone(model, PROMPTS, **how), before)
    finally:
        vars(model).pop("_compiled_call", None)
        torch.compiler.reset()


@pytest.mark.slow
@pytest.mark.parametrize("part", ["forward", "layers"])
def test_what_the_user_compiled_explores_too(part: str) -> None:
    model, short = small("llama", num_hidden_layers=1), dict(max_new_tokens=4)
    expected, _ = explored(model, False, PROMPTS, **short)
    before = alone(model, PROMPTS, **short)
    layer = model.model.layers[0]
    try:
        if part == "forward":
            model.forward = torch.compile(model.forward, backend="eager")
        else:
            layer.compile(backend="eager")
        assert torch.equal(alone(model, PROMPTS, **short), before)
        assert torch.equal(explored(model, False, PROMPTS, **short)[0], expected)
        assert torch.equal(alone(model, PROMPTS, **short), before)
    finally:
        vars(model).pop("forward", None)
        layer._compiled_call_impl = None
        torch.compiler.reset()


# ---- layers and signals


@both_calls
@pytest.mark.parametrize(
    "options",
    [
        ESampConfig(source_layer=0),
        ESampConfig(source_layer=2, beta=2),
        ESampConfig(source_layer=0, target_layer=2, beta=2),
        ESampConfig(source_layer=1, target_layer=3),
        ESampConfig(signal="action", gain=5),
        ESampConfig(signal="both", gain=5),
        ESampConfig(distiller="mean"),
        ESampConfig(preset="paper"),
        ESampConfig(scope="batch"),
        ESampConfig(signal="contrast"),
        ESampConfig(signal="contrast", cap=1.0),
        ESampConfig(kl=0.01),
        ESampConfig(keep_entropy=True),
        ESampConfig(keep_end=True),
    ],
    ids=lambda options: ",".join(f"{name}={getattr(options, name)}" for name in sorted(options.model_fields_set)),
)
@pytest.mark.parametrize("architecture", ["llama", "gemma2"])
def test_every_signal_layer_and_distiller_acts(architecture: str, options: ESampConfig, own_call: bool) -> None:
    model = small(architecture)
    asked = dict(options=options, telemetry="full", return_dict_in_generate=True, output_logits=True)
    got, run = explored(model, own_call, PROMPTS, **asked)
    told = run.telemetry()
    assert told["rows_steered"] >= ROWS * (steps_counted(own_call) - 1)
    assert told["updates"] == steps_counted(own_call) * (1 if options.scope == "batch" else 2)
    assert told["resets"] == 0
    assert told["kl"] > 0
    if AFTER_CAP.get(architecture):
        assert all(logits.abs().max() < 2 * AFTER_CAP[architecture] * (1 + options.beta) for logits in got.logits)


AFTER_CAP = {"gemma2": 1.5}


def test_the_action_signal_by_hand_with_a_soft_cap() -> None:
    """Two samples, one after the other: the second backs off, at its first step, from what the first did there."""
    model = small("gemma2")
    options = ESampConfig(signal="action", gain=2, features=0, action_ridge=0.1)
    how = dict(do_sample=False, max_new_tokens=3, return_dict_in_generate=True, output_logits=True)
    final: list[Tensor] = []
    with esamp.explore(model, options) as run:
        first, second = (run.generate(PROMPTS[:1], **how) for _ in range(2))
    handle = model.lm_head.register_forward_pre_hook(lambda module, args: final.append(args[0][0].double()))
    with torch.no_grad():
        plain = model(first.sequences[:, :-1]).logits[0].double()
    handle.remove()
    weight = model.lm_head.weight.detach().double()
    features = torch.nn.functional.pad(final[0] / final[0].norm(dim=-1, keepdim=True), (0, 1), value=0.5)[5:]
    taken = weight[first.sequences[0, 6:]] - first_reference(plain, features, weight)
    predicted = features[:1] @ torch.linalg.solve(
        0.1 * torch.eye(65, dtype=torch.float64) + features.T @ features, features.T @ taken
    )
    gain = 2 / (weight - weight.mean(0)).square().sum(1).mean()  # in nats
    back_off = 1.5 * torch.tanh((final[0][5] + gain * predicted[0]) @ weight.T / 1.5)
    torch.testing.assert_close(second.logits[1][0].double(), 2 * plain[5] - back_off, atol=1e-4, rtol=1e-4)
    assert (second.logits[1] - first.logits[1]).abs().max() > 1e-2


def first_reference(plain: Tensor, features: Tensor, weight: Tensor) -> Tensor:
    """The expected LM-head row at each decode step of the model alone."""
    return plain[5 : 5 + len(features)].softmax(-1) @ weight


@both_calls
def test_one_token_alone_explores_nothing_and_says_so(own_call: bool) -> None:
    with pytest.warns(InactiveMethodWarning, match="no decode step"):
        explored(small("llama"), own_call, PROMPTS, max_new_tokens=1)


# ---- traces


def test_a_trace_tells_of_every_token() -> None:
    model = small("llama")
    torch.manual_seed(5)
    with esamp.explore(model, STRONG, samples_per_prompt=SAMPLES, trace=True) as run:
        out = run.generate(PROMPTS, **(ARGUMENTS | dict(suppress_tokens=[PAD])))
        trace = run.trace
    texts = out[:, PROMPTS.shape[1] :]
    ended = (texts == EOS).cumsum(1) - (texts == EOS).int() > 0
    with torch.no_grad():
        logits = model(out).logits[:, PROMPTS.shape[1] - 1 : -1].log_softmax(-1)
    surprisal = -logits.gather(2, texts.unsqueeze(2)).squeeze(2)
    assert trace.surprisal.shape == trace.kl.shape == trace.novelty.shape == texts.shape
    measured = ~ended
    measured[:, 0] = False
    torch.testing.assert_close(trace.surprisal[measured], surprisal[measured], atol=1e-4, rtol=1e-4)
    for series in (trace.surprisal, trace.kl, trace.novelty):
        assert torch.equal(series.isnan(), ~measured)
    assert (trace.kl[measured] >= -1e-6).all()


def test_a_trace_must_be_asked_for() -> None:
    with esamp.explore(small("llama")) as run, pytest.raises(OptionError, match="trace=True"):
        _ = run.trace
