"""Rival methods and their combinations in the transformers engine, against a float64 replay of every token."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, LogitsProcessor, PreTrainedModel, PreTrainedTokenizerBase

import esamp
from esamp import HFEngine, Request
from esamp.engines.hf.processors import CountPenalties, MinPProcessor
from esamp.engines.text import line_breaks
from esamp.methods import registry
from esamp.methods.base import DecodeMethod
from esamp.models import embedded_path
from esamp.sampling import Sampling
from support.rivals_cases import CASES, Case, expected_distributions

CLOSE: dict[str, Any] = dict(atol=3e-5, rtol=0)
PROMPTS = {"embedded": "Numbers 3 5 8 9 target 24", "stories260K": "Once upon a time there was a"}
SAMPLES, SEED = 6, 2**61 + 5
STEPS = [name for name, case in CASES.items() if issubclass(registry.get(case.method), DecodeMethod)]


@cache
def loaded(folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval(), AutoTokenizer.from_pretrained(
        folder
    )


@pytest.fixture(params=PROMPTS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def engine(name: str, request: pytest.FixtureRequest) -> HFEngine:
    folder = embedded_path() if name == "embedded" else request.getfixturevalue("shared") / "models" / name
    return HFEngine(*loaded(folder))


class Recorder(LogitsProcessor):
    """Records the scores that tokens are drawn from."""

    def __init__(self) -> None:
        self.scores: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.scores.append(scores)
        return scores


def protected(engine: HFEngine) -> frozenset[int]:
    """Tokens that break lines or end samples."""
    return frozenset({*line_breaks(engine.tokenizer), engine.model.generation_config.eos_token_id})


def until_end(tokens: Sequence[int], end: int) -> list[int]:
    """The tokens up to the first end token, which is included."""
    return list(tokens[: tokens.index(end) + 1]) if end in tokens else list(tokens)


def arguments(sampling: Sampling) -> dict[str, Any]:
    penalties = CountPenalties(sampling.presence_penalty, sampling.frequency_penalty)
    return dict(
        do_sample=True,
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
        repetition_penalty=sampling.repetition_penalty,
        max_new_tokens=sampling.max_tokens,
        logits_processor=[
            penalties,
            *([MinPProcessor(sampling.min_p, sampling.temperature)] if sampling.min_p else []),
        ],
    )


@pytest.mark.parametrize("label", STEPS)
def test_every_token_is_drawn_from_the_distribution_that_the_definition_gives(
    engine: HFEngine, name: str, label: str
) -> None:
    case, recorder = CASES[label], Recorder()
    prompt = engine.tokenizer(PROMPTS[name]).input_ids
    with esamp.explore(
        engine.model,
        case.parsed_options,
        method=case.method,
        samples_per_prompt=SAMPLES,
        tokenizer=engine.tokenizer,
    ) as run:
        run.seeds = [SEED]
        ids = torch.tensor([prompt])
        out = run.generate(ids, last=[recorder], num_return_sequences=SAMPLES, **arguments(case.final_sampling))
    end = engine.model.generation_config.eos_token_id
    samples = [until_end(row, end) for row in out[:, len(prompt) :].tolist()]
    drawn = torch.stack(recorder.scores, dim=1).double().softmax(-1)
    own = engine.model(out).logits[:, len(prompt) - 1 : -1].double()
    replayed = expected_distributions(case, engine.model, prompt, samples, seed=SEED, protected=protected(engine))
    changed_tokens = 0
    for index, expected in enumerate(replayed):
        torch.testing.assert_close(drawn[index, : len(expected)], expected, **CLOSE)
        plain = (own[index, : len(expected)] / case.final_sampling.temperature).softmax(-1)
        changed_tokens += int(((expected - plain).abs().amax(-1) > 1e-3).sum())
    assert changed_tokens >= SAMPLES
    assert sum(map(len, samples)) > 6 * SAMPLES


def check_picks(tokens: Sequence[int], chances: Tensor, uniforms: Tensor) -> None:
    """Check that each token is the one that its random number picks from its row of `chances` `[T, V]`."""
    for token, row, u in zip(tokens, chances, uniforms, strict=False):
        above = row.cumsum(-1)[token].item()
        assert above - row[token].item() - 1e-5 <= u.item() <= above + 1e-5
        assert row[token] > 0


@pytest.mark.parametrize("label", CASES)
def test_the_engine_draws_the_tokens_that_its_random_numbers_pick(engine: HFEngine, name: str, label: str) -> None:
    case = CASES[label]
    request = Request(
        "r", PROMPTS[name], n=4, method=case.method, options=case.parsed_options, sampling=case.sampling, seed=3
    )
    other = Request(
        "s", f"{PROMPTS[name]} 7", n=4, method=case.method, options=case.parsed_options, sampling=case.sampling
    )
    for completion in engine.generate([request, other]):
        own = completion.request
        assert isinstance(own.prompt, str)
        prompt = engine.tokenizer(own.prompt).input_ids
        samples = [sample.token_ids for sample in completion.samples]
        generator = torch.Generator().manual_seed(own.own_seed)
        uniforms = torch.rand(own.n, case.sampling.max_tokens or 0, generator=generator, dtype=torch.float64)
        seed = own.own_seed % 2**62
        chances = expected_distributions(case, engine.model, prompt, samples, seed=seed, protected=protected(engine))
        for tokens, row, numbers in zip(samples, chances, uniforms, strict=True):
            check_picks(tokens, row, numbers)


def test_count_penalties_equal_values_by_hand_and_ignore_the_prompt() -> None:
    scores = torch.zeros(2, 5)
    prompt = torch.tensor([[3, 3, 3], [4, 4, 4]])
    penalties = CountPenalties(presence=0.5, frequency=0.25)
    assert torch.equal(penalties(prompt, scores), scores)  # the prompt does not count
    once = torch.cat([prompt, torch.tensor([[1], [2]])], 1)
    assert penalties(once, scores).tolist() == [[0, -0.75, 0, 0, 0], [0, 0, -0.75, 0, 0]]
    twice = torch.cat([once, torch.tensor([[1], [4]])], 1)
    assert penalties(twice, scores).tolist() == [[0, -1.0, 0, 0, 0], [0, 0, -0.75, 0, -0.75]]
    assert not scores.any()


def test_fire_raises_the_temperature_of_the_first_token_only() -> None:
    """First tokens spread over the candidates of FIRE, with and without ESamp."""
    engine = HFEngine.load()
    prompt, n = PROMPTS["embedded"], 64
    sampling = Sampling(temperature=0.7, max_tokens=2)
    firsts = {}
    for method in ("vanilla", "fire", "esamp+fire"):
        [completion] = engine.generate([Request("r", prompt, n=n, method=method, sampling=sampling)])
        firsts[method] = {sample.token_ids[0] for sample in completion.samples}
        counted = {"vanilla": None, "fire": ("rows_steered", n), "esamp+fire": ("rows_filtered", n)}[method]
        if counted is not None:
            assert completion.telemetry[counted[0]] == counted[1]
    assert len(firsts["vanilla"]) < 10 < 15 < len(firsts["fire"])
    assert firsts["fire"] == firsts["esamp+fire"]


def test_the_cases_differ_and_cover_every_rival() -> None:
    assert len({(case.method, str(case.options), str(case.settings)) for case in CASES.values()}) == len(CASES)
    assert {part for case in CASES.values() for part in case.method.split("+")} == {
        *("vanilla", "min_p", "penalties", "top_n_sigma", "xtc", "fire", "entropy_adaptive", "esamp")
    }
    assert all(isinstance(case, Case) for case in CASES.values())
