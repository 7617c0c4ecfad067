"""Rivals and combinations in the transformers engine: what each token is drawn from, replayed in float64."""

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
from esamp.engines.hf.processors import CountPenalties, MinP
from esamp.engines.text import line_breaks
from esamp.methods import registry
from esamp.methods.base import DecodeMethod
from esamp.models import embedded_path
from esamp.sampling import Sampling
from support.rivals_cases import SCENES, Scene, wanted

CLOSE: dict[str, Any] = dict(atol=3e-5, rtol=0)
PROMPTS = {"embedded": "Numbers 3 5 8 9 target 24", "stories260K": "Once upon a time there was a"}
SAMPLES, SEED = 6, 2**61 + 5
STEPS = [name for name, scene in SCENES.items() if issubclass(registry.get(scene.method), DecodeMethod)]


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
    """Keeps the scores that tokens are drawn from."""

    def __init__(self) -> None:
        self.shown: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.shown.append(scores)
        return scores


def protected(engine: HFEngine) -> frozenset[int]:
    """Tokens that break lines or end samples."""
    return frozenset({*line_breaks(engine.tokenizer), engine.model.generation_config.eos_token_id})


def cut(tokens: Sequence[int], end: int) -> list[int]:
    """Up to the token that ends the sample."""
    return list(tokens[: tokens.index(end) + 1]) if end in tokens else list(tokens)


def arguments(sampling: Sampling) -> dict[str, Any]:
    counting = CountPenalties(sampling.presence_penalty, sampling.frequency_penalty)
    return dict(
        do_sample=True,
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
        repetition_penalty=sampling.repetition_penalty,
        max_new_tokens=sampling.max_tokens,
        logits_processor=[counting, *([MinP(sampling.min_p, sampling.temperature)] if sampling.min_p else [])],
    )


@pytest.mark.parametrize("scene", STEPS)
def test_every_token_is_drawn_from_the_distribution_of_the_definition(engine: HFEngine, name: str, scene: str) -> None:
    asked, recorder = SCENES[scene], Recorder()
    prompt = engine.tokenizer(PROMPTS[name]).input_ids
    with esamp.explore(
        engine.model,
        asked.own,
        method=asked.method,
        samples_per_prompt=SAMPLES,
        tokenizer=engine.tokenizer,
    ) as run:
        run.seeds = [SEED]
        ids = torch.tensor([prompt])
        out = run.generate(ids, last=[recorder], num_return_sequences=SAMPLES, **arguments(asked.final))
    end = engine.model.generation_config.eos_token_id
    samples = [cut(row, end) for row in out[:, len(prompt) :].tolist()]
    drawn = torch.stack(recorder.shown, dim=1).double().softmax(-1)
    own = engine.model(out).logits[:, len(prompt) - 1 : -1].double()
    replayed = wanted(asked, engine.model, prompt, samples, seed=SEED, protected=protected(engine))
    changed = 0
    for index, expected in enumerate(replayed):
        torch.testing.assert_close(drawn[index, : len(expected)], expected, **CLOSE)
        plain = (own[index, : len(expected)] / asked.final.temperature).softmax(-1)
        changed += int(((expected - plain).abs().amax(-1) > 1e-3).sum())
    assert changed >= SAMPLES
    assert sum(map(len, samples)) > 6 * SAMPLES


def inside(tokens: Sequence[int], chances: Tensor, uniforms: Tensor) -> None:
    """Whether each token is the one that its random number picks from the distribution `[T, V]`."""
    for token, row, u in zip(tokens, chances, uniforms, strict=False):
        above = row.cumsum(-1)[token].item()
        assert above - row[token].item() - 1e-5 <= u.item() <= above + 1e-5
        assert row[token] > 0


@pytest.mark.parametrize("scene", SCENES)
def test_the_engine_draws_what_its_random_numbers_pick(engine: HFEngine, name: str, scene: str) -> None:
    asked = SCENES[scene]
    request = Request("r", PROMPTS[name], n=4, method=asked.method, options=asked.own, sampling=asked.sampling, seed=3)
    other = Request("s", f"{PROMPTS[name]} 7", n=4, method=asked.method, options=asked.own, sampling=asked.sampling)
    for completion in engine.generate([request, other]):
        own = completion.request
        assert isinstance(own.prompt, str)
        prompt = engine.tokenizer(own.prompt).input_ids
        samples = [sample.token_ids for sample in completion.samples]
        generator = torch.Generator().manual_seed(own.own_seed)
        uniforms = torch.rand(own.n, asked.sampling.max_tokens or 0, generator=generator, dtype=torch.float64)
        seed = own.own_seed % 2**62
        chances = wanted(asked, engine.model, prompt, samples, seed=seed, protected=protected(engine))
        for tokens, row, numbers in zip(samples, chances, uniforms, strict=True):
            inside(tokens, row, numbers)


def test_presence_and_frequency_by_hand() -> None:
    scores = torch.zeros(2, 5)
    prompt = torch.tensor([[3, 3, 3], [4, 4, 4]])
    counting = CountPenalties(presence=0.5, frequency=0.25)
    assert torch.equal(counting(prompt, scores), scores)  # the prompt does not count
    once = torch.cat([prompt, torch.tensor([[1], [2]])], 1)
    assert counting(once, scores).tolist() == [[0, -0.75, 0, 0, 0], [0, 0, -0.75, 0, 0]]
    twice = torch.cat([once, torch.tensor([[1], [4]])], 1)
    assert counting(twice, scores).tolist() == [[0, -1.0, 0, 0, 0], [0, 0, -0.75, 0, -0.75]]
    assert not scores.any()


def test_a_rival_s_first_token_is_hot() -> None:
    """FIRE's first tokens spread over its candidates, and nothing else does."""
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


def test_scenes_are_not_all_alike() -> None:
    assert len({(scene.method, str(scene.options), str(scene.settings)) for scene in SCENES.values()}) == len(SCENES)
    assert {part for scene in SCENES.values() for part in scene.method.split("+")} == {
        *("vanilla", "min_p", "penalties", "top_n_sigma", "xtc", "fire", "entropy_adaptive", "esamp")
    }
    assert all(isinstance(scene, Scene) for scene in SCENES.values())
