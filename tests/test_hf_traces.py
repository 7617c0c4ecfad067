"""Token traces: what is measured at every token is what its definition says, and measuring changes nothing."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import esamp
from esamp import Completion, ESampConfig, HFEngine, Request, Sampling
from esamp.engines import registry
from esamp.errors import UnsupportedError
from support import esamp_reference as reference
from support.hf_models import small, small_tokenizer

LENGTH = 12
OPTIONS: dict[str, ESampConfig | None] = {
    "esamp": ESampConfig(beta=0.5, distiller="mean"),
    "vanilla": None,
    "esamp+fire": None,
    "top_n_sigma": None,
    "esamp_noise": None,
}
SERIES = ("novelty", "residual", "kl", "surprisal", "entropy", "cosine", "explained")
Numbers = NDArray[np.float64]


def engine(**kwargs: Any) -> HFEngine:
    return HFEngine(small("llama"), small_tokenizer(), **kwargs)


def answers(method: str, *, trace: bool, **options: Any) -> Completion:
    own = ESampConfig(**options) if options else OPTIONS[method]
    request = Request("x", "Hello there", 5, Sampling(max_tokens=LENGTH), method, own, seed=3)
    return next(engine(trace=trace).generate([request]))


def series(completion: Completion, name: str) -> list[Numbers]:
    found = []
    for sample in completion.samples:
        assert sample.trace is not None
        values = vars(sample.trace)[name]
        assert values.dtype == torch.float32
        assert values.shape == (len(sample.token_ids),)
        found.append(values.double().numpy())
    return found


def forward(completion: Completion) -> tuple[list[Numbers], list[Numbers]]:
    """Of each sample, the final hidden states `[tokens, d]` and log-probabilities `[tokens, V]` of its tokens."""
    model, prompt = small("llama"), small_tokenizer()("Hello there")["input_ids"]
    states, logp = [], []
    for sample in completion.samples:
        with torch.no_grad():
            out = model(torch.tensor([[*prompt, *sample.token_ids]]), output_hidden_states=True)
        kept = slice(len(prompt) - 1, -1)
        states.append(out.hidden_states[-1][0, kept].double().numpy())
        logp.append(out.logits[0, kept].double().log_softmax(-1).numpy())
    return states, logp


def test_every_measurement_is_what_its_definition_says() -> None:
    """The distiller of this run predicts the running mean, and trusts it n / (n + 4) after n rows."""
    found = answers("esamp", trace=True)
    states, logp = forward(found)
    weight = small("llama").get_output_embeddings().weight.detach().double().numpy()
    got = {name: series(found, name) for name in SERIES}
    seen: list[Numbers] = []
    for step in range(LENGTH):
        live = [place for place, sample in enumerate(found.samples) if len(sample.token_ids) > step]
        mean = np.mean(seen, axis=0) if seen else np.zeros(states[0].shape[1])
        for place in live:
            if step == 0:  # comes from prefill
                assert all(np.isnan(got[name][place][0]) for name in SERIES)
                continue
            token, error = found.samples[place].token_ids[step], states[place][step] - mean
            trust = len(seen) / (len(seen) + 4)
            expected = {
                "residual": np.linalg.norm(error),
                "novelty": trust * np.linalg.norm(error),
                "surprisal": -logp[place][step, token],
                "entropy": -(np.exp(logp[place][step]) * logp[place][step]).sum(),
                "cosine": weight[token] @ error / np.linalg.norm(weight[token]) / np.linalg.norm(error),
                "explained": 0.0,  # the mean explains nothing of the variance around the mean
            }
            if not seen:
                expected |= {"cosine": np.nan, "explained": np.nan}
            for name, value in expected.items():
                assert got[name][place][step] == pytest.approx(value, rel=1e-3, abs=1e-4, nan_ok=True), (name, step)
        if step:
            seen += [states[place][step] for place in live]
    assert len(seen) > 3 * LENGTH


def test_explained_variance_adds_up_to_that_of_telemetry() -> None:
    found = answers("esamp", trace=True, beta=0.5)
    explained, residual = (np.concatenate(series(found, name)) for name in ("explained", "residual"))
    known = np.isfinite(explained)
    missed = residual[known] ** 2
    variance = missed / (1 - explained[known])
    assert explained[known].std() > 0.01
    assert 1 - missed.sum() / variance.sum() == pytest.approx(found.telemetry["explained_variance"], rel=1e-3)
    cosine, novelty = (np.concatenate(series(found, name)) for name in ("cosine", "novelty"))
    assert np.nanmean(cosine) == pytest.approx(found.telemetry["cos_token"], rel=1e-3)
    assert np.nanmean(novelty) == pytest.approx(found.telemetry["error_norm"], rel=1e-3)


@pytest.mark.parametrize("method", ["vanilla", "top_n_sigma"])
def test_methods_without_an_error_are_measured_from_the_first_token_on(method: str) -> None:
    found = answers(method, trace=True)
    _, logp = forward(found)
    surprisal, entropy = series(found, "surprisal"), series(found, "entropy")
    for place, sample in enumerate(found.samples):
        steps = np.arange(len(sample.token_ids))
        np.testing.assert_allclose(surprisal[place], -logp[place][steps, list(sample.token_ids)], atol=1e-4)
        np.testing.assert_allclose(entropy[place], -(np.exp(logp[place]) * logp[place]).sum(-1), atol=1e-4)
    for name in set(SERIES) - {"surprisal", "entropy"}:
        assert all(np.isnan(values).all() for values in series(found, name))


def test_the_noise_control_is_measured_by_the_true_error() -> None:
    found = answers("esamp_noise", trace=True)
    assert np.nanmean(np.concatenate(series(found, "cosine"))) == pytest.approx(found.telemetry["cos_token"], rel=1e-3)


@pytest.mark.parametrize("method", list(OPTIONS))
def test_to_be_traced_changes_no_sample(method: str) -> None:
    plain, traced = (answers(method, trace=trace) for trace in (False, True))
    assert [sample.token_ids for sample in plain.samples] == [sample.token_ids for sample in traced.samples]
    assert all(sample.trace is None for sample in plain.samples)
    told = {name: value for name, value in plain.telemetry.items() if not np.isnan(value)}  # a trace tells more
    assert told == pytest.approx({name: traced.telemetry[name] for name in told}, rel=1e-5)
    for sample in traced.samples:
        assert sample.trace is not None
        assert "".join(sample.trace.pieces) == sample.text


def test_filters_of_the_sampler_do_not_touch_the_reference() -> None:
    request = Request("x", "Hello there", 4, Sampling(max_tokens=LENGTH, temperature=0.5, top_k=3), "vanilla")
    found = next(engine(trace=True).generate([request]))
    _, logp = forward(found)
    for place, entropy in enumerate(series(found, "entropy")):
        np.testing.assert_allclose(entropy, -(np.exp(logp[place]) * logp[place]).sum(-1), atol=1e-4)


def test_kl_is_that_of_the_distribution_drawn_from() -> None:
    """Through `explore`, whose traces are `[B, T]`: one row, steered by what the rows before it taught."""
    model, prompt = small("llama"), torch.tensor([[5, 6, 7]] * 3)
    with esamp.explore(model, ESampConfig(beta=1, distiller="mean"), samples_per_prompt=3, trace=True) as run:
        out = run.generate(prompt, do_sample=True, max_new_tokens=6, min_new_tokens=6, pad_token_id=2)
        trace = run.trace
    with torch.no_grad():
        hidden = model(out, output_hidden_states=True).hidden_states[-1].double().numpy()
    weight = model.get_output_embeddings().weight.detach().double().numpy()
    state = hidden[:, prompt.shape[1] - 1 :]
    for step in range(2, 6):
        taught = state[:, 1:step].reshape(-1, state.shape[-1])
        for row in range(3):
            error = (state[row, step] - taught.mean(0)) * len(taught) / (len(taught) + 4)
            steered, plain = weight @ (state[row, step] + error), weight @ state[row, step]
            assert float(trace.kl[row, step]) == pytest.approx(reference.kl(steered, plain), rel=1e-2, abs=1e-4)


def test_engines_that_keep_no_traces_say_which_do() -> None:
    where = dict(device="cpu", dtype="auto", batch_rows=4)
    for name in ("vllm", "openai"):
        with pytest.raises(UnsupportedError, match=f"engine '{name}' keeps no traces: use engine = 'hf'"):
            registry.start(name, None, **where, trace=True)
    started = registry.start("hf", None, **where, trace=True)
    completion = next(iter(started.generate([Request("x", "Numbers 1 2 target 3", 1, Sampling(max_tokens=3))])))
    assert completion.samples[0].trace is not None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA, whose synchronisations are what is counted")
@pytest.mark.parametrize("signal", ["state", "both"])
def test_a_traced_step_does_not_wait_for_the_device(signal: Any) -> None:
    model = small("llama").to("cuda")
    try:
        with torch.no_grad(), esamp.explore(model, ESampConfig(signal=signal), samples_per_prompt=2, trace=True) as run:
            ids = torch.tensor([[5, 6, 7]] * 2, device="cuda")
            out = model(ids, use_cache=True)
            step = torch.full((2, 1), 9, device="cuda")
            for _ in range(2):
                out = model(step, past_key_values=out.past_key_values)
            torch.cuda.set_sync_debug_mode("error")
            for _ in range(3):
                out = model(step, past_key_values=out.past_key_values)
            torch.cuda.set_sync_debug_mode("default")
            assert run.trace.cosine[:, 2:].isfinite().all()
    finally:
        torch.cuda.set_sync_debug_mode("default")
        model.to("cpu")
