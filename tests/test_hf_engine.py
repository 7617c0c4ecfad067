"""`HFEngine`: a sample depends on its request and its index alone, texts end where they should, errors help."""

from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import chisquare

import esamp
from esamp import Completion, ESampConfig, HFEngine, Request, Sampling
from esamp.engines.checks import check_active
from esamp.engines.hf.processors import RepetitionPenalty, SeededSampler
from esamp.errors import EsampError, InputError, OptionError, UnsupportedError
from support.hf_models import EOS, PAD, small, small_tokenizer

SHORT = Sampling(max_tokens=10)
OPTIONS = {
    "vanilla": ("vanilla", None),
    "state": ("esamp", ESampConfig(beta=1)),
    "waves": ("esamp", ESampConfig(beta=1, waves=3)),
    "action": ("esamp", ESampConfig(signal="action")),
}


def engine(architecture: str = "llama", **kwargs: Any) -> HFEngine:
    return HFEngine(small(architecture), small_tokenizer(), **kwargs)


def ask(prompt: Any = "Hello", n: int = 5, method: str = "state", sampling: Sampling = SHORT, **kwargs: Any) -> Request:
    name, options = OPTIONS[method]
    return Request(id=str(prompt), prompt=prompt, n=n, sampling=sampling, method=name, options=options, **kwargs)


def tokens(completion: Completion) -> list[tuple[int, ...]]:
    return [sample.token_ids for sample in completion.samples]


@pytest.mark.parametrize("method", OPTIONS)
@pytest.mark.parametrize("architecture", ["llama", "gemma2"])
def test_a_sample_does_not_depend_on_its_neighbours(architecture: str, method: str) -> None:
    alone = [next(engine(architecture).generate([ask(prompt, method=method)])) for prompt in ("Hello", "a much longer")]
    together = list(
        engine(architecture).generate([ask(p, method=method) for p in ("xyz", "Hello", "a much longer", "Q")])
    )
    assert [c.request.prompt for c in together] == ["xyz", "Hello", "a much longer", "Q"]
    for mine, theirs in zip(together[1:3], alone, strict=True):
        assert tokens(mine) == tokens(theirs)
        assert dict(mine.telemetry) == pytest.approx(dict(theirs.telemetry), rel=1e-2, abs=1e-3, nan_ok=True)
        assert [sample.index for sample in mine.samples] == list(range(5))
    assert len(set(map(tuple, (tokens(c)[0] for c in together)))) == 4


def test_the_same_prompt_twice_is_two_groups_with_the_same_samples() -> None:
    first, second = engine().generate([ask(), ask()])
    assert tokens(first) == tokens(second)
    assert first.telemetry == pytest.approx(second.telemetry, rel=1e-3, nan_ok=True)


def test_seed_prompt_and_index_choose_the_random_numbers() -> None:
    few, many, other = (
        tokens(next(engine().generate([ask(n=n, method="vanilla", seed=seed)]))) for n, seed in ((3, 0), (9, 0), (3, 1))
    )
    assert many[:3] == few
    assert not set(other) & set(many)
    assert len(set(many)) == 9


@pytest.mark.parametrize("method", ["vanilla", "state"])
def test_more_samples_than_fit_into_a_batch_come_in_several_calls(method: str) -> None:
    split = next(engine(batch_rows=4).generate([ask(n=10, method=method)]))
    whole = next(engine().generate([ask(n=10, method=method)]))
    assert [sample.index for sample in split.samples] == list(range(10))
    if method == "vanilla":
        assert tokens(split) == tokens(whole)
    else:  # later calls profit from what earlier ones taught the group
        assert tokens(split)[:4] != tokens(whole)[:4] or split.telemetry["updates"] > whole.telemetry["updates"]


def test_waves_share_what_they_learn() -> None:
    lockstep = next(engine().generate([ask(n=6)]))
    waves = next(engine().generate([ask(n=6, method="waves")]))
    assert waves.telemetry["updates"] > 2 * lockstep.telemetry["updates"]
    assert waves.telemetry["groups_refused"] == 0


def test_a_stop_text_ends_and_is_cut_off() -> None:
    free = next(engine().generate([ask(n=8, sampling=Sampling(max_tokens=24))]))
    stop = ("e", "AB", "</s>", "k")
    completion = next(engine(trace=True).generate([ask(n=8, sampling=Sampling(max_tokens=24, stop=stop))]))
    reasons = [sample.finish_reason for sample in completion.samples]
    assert "stop" in reasons
    for sample in completion.samples:
        assert not any(text in sample.text for text in stop)
        assert PAD not in sample.token_ids[:-1] or sample.finish_reason == "length"
        assert (len(sample.token_ids) < 24) <= (sample.finish_reason == "stop")
        assert sample.trace is not None
        assert len(sample.trace.novelty) == len(sample.trace.kl) == len(sample.trace.surprisal) == len(sample.token_ids)
        assert len(sample.trace.pieces) == len(sample.token_ids)
        joined = "".join(sample.trace.pieces)
        assert joined == small_tokenizer().decode(sample.token_ids, skip_special_tokens=True)
        assert joined.startswith(sample.text)
        assert sample.trace.novelty[0].isnan()
        assert sample.trace.surprisal[1:].isfinite().all()
    assert completion.samples[0].token_ids[0] == free.samples[0].token_ids[0]
    check_active(completion)


def test_temperature_zero_is_greedy_and_needs_no_numbers() -> None:
    model, tokenizer = small("llama"), small_tokenizer()
    cold = next(engine().generate([ask(n=2, method="vanilla", sampling=Sampling(temperature=0, max_tokens=6))]))
    prompt = tokenizer("Hello", return_tensors="pt")["input_ids"]
    greedy = model.generate(prompt, do_sample=False, max_new_tokens=6)[0, prompt.shape[1] :].tolist()
    assert tokens(cold)[0] == tokens(cold)[1] == tuple(greedy)


def test_defaults_of_the_model_do_not_interfere(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small("llama")
    expected = tokens(next(engine().generate([ask(method="vanilla")])))
    sampler = dict(temperature=0.1, top_k=1, top_p=0.1, min_p=0.9, typical_p=0.2, repetition_penalty=3.0, max_length=7)
    shape = dict(no_repeat_ngram_size=1, min_new_tokens=10, epsilon_cutoff=0.1)
    for name, value in (sampler | shape).items():
        monkeypatch.setattr(model.generation_config, name, value)
    assert tokens(next(engine().generate([ask(method="vanilla")]))) == expected


@pytest.mark.parametrize("method", ["vanilla", "waves"])
def test_progress_tells_of_every_sample_and_token(method: str) -> None:
    told: list[tuple[int, int]] = []
    requests = [ask(prompt, n=6, method=method, sampling=Sampling(max_tokens=30)) for prompt in ("Hello", "xyz")]
    completions = list(engine().generate(requests, progress=lambda samples, new: told.append((samples, new))))
    assert sum(samples for samples, _ in told) == 12
    assert sum(new for _, new in told) == sum(len(ids) for c in completions for ids in tokens(c))


def test_requests_of_different_kinds_run_apart_and_in_order() -> None:
    requests = [ask("a", n=2), ask("b", n=3), ask("c", n=3, method="vanilla"), ask("d", n=3, method="vanilla")]
    completions = list(engine().generate(requests))
    assert [c.request for c in completions] == requests
    assert [len(c.samples) for c in completions] == [2, 3, 3, 3]
    assert completions[2].telemetry == {}
    assert all(c.prompt_tokens == 1 and c.seconds > 0 for c in completions)


def test_a_model_without_a_context_limit_runs() -> None:
    completion = next(engine("mamba").generate([ask(sampling=Sampling(max_tokens=5))]))
    assert len(completion.samples) == 5


def test_a_chat_goes_through_the_template() -> None:
    tokenizer = small_tokenizer()
    chat = ({"role": "user", "content": "Hello"},)
    with pytest.raises(InputError, match="no chat template"):
        next(engine().generate([ask(chat)]))
    tokenizer.chat_template = (
        "{% for t in messages %}[{{ t.content }}]{% endfor %}{% if add_generation_prompt %}>{% endif %}"
    )
    with_template = HFEngine(small("llama"), tokenizer)
    chatted = next(with_template.generate([ask(chat, method="vanilla")]))
    assert chatted.prompt_tokens == len("[Hello]>")


@pytest.mark.parametrize(
    ("request_", "kind", "message"),
    [
        (ask(""), InputError, "empty"),
        (ask(()), InputError, "no chat template"),
        (ask(n=0), OptionError, "n = 0"),
        (ask("x" * 250, sampling=Sampling(max_tokens=7)), InputError, "set max_tokens to at most 6"),
        (ask("x" * 300), InputError, "shorten"),
        (Request("a", "b", method="nothing"), OptionError, "choose from"),
        (Request("a", "b", method="vanilla", options=ESampConfig()), OptionError, "VanillaOptions"),
    ],
)
def test_requests_that_cannot_run_say_why(request_: Request, kind: type[EsampError], message: str) -> None:
    with pytest.raises(kind, match=message):
        list(engine().generate([request_]))


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"model": "no/such/folder"}, InputError, "cannot be loaded"),
        ({"dtype": "float8"}, OptionError, "choose from auto"),
        ({"device": "nowhere"}, OptionError, "try cpu"),
        ({"device": "cuda:99"}, OptionError, "try cpu"),
        ({"batch_rows": 0}, OptionError, "at least 1"),
    ],
)
def test_loading_fails_with_an_error_that_helps(
    arguments: dict[str, Any], kind: type[EsampError], message: str, tmp_path: Path
) -> None:
    small("llama").save_pretrained(tmp_path)
    small_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(kind, match=message):
        HFEngine.load(**({"model": tmp_path} | arguments))


@pytest.mark.parametrize("dtype", ["auto", "float32", "bfloat16", "float16"])
def test_a_saved_model_loads_in_every_precision(dtype: str, tmp_path: Path) -> None:
    small("llama").save_pretrained(tmp_path)
    small_tokenizer().save_pretrained(tmp_path)
    loaded = HFEngine.load(tmp_path, dtype=dtype, device="cpu")
    assert loaded.model.dtype == (torch.float32 if dtype == "auto" else getattr(torch, dtype))
    completion = next(loaded.generate([ask()]))
    assert completion.telemetry["rows_steered"] > 0


def test_damaged_weights_are_an_input_error(tmp_path: Path) -> None:
    small("llama").save_pretrained(tmp_path)
    small_tokenizer().save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(InputError, match="cannot be loaded"):
        HFEngine.load(tmp_path)


@pytest.mark.parametrize("name", ["stories260K", "babyllama"])
def test_trained_models_tell_stories(shared: Path, name: str) -> None:
    loaded = HFEngine.load(shared / "models" / name, trace=True)
    sampling = Sampling(max_tokens=40, temperature=0.8)
    request = Request("s", "Once upon a time", n=8, sampling=sampling, options=ESampConfig(beta=0.5))
    completion = next(loaded.generate([request]))
    check_active(completion)
    assert len({sample.text for sample in completion.samples}) > 3
    assert 0 < completion.telemetry["kl"] < 2
    assert -1 < completion.telemetry["explained_variance"] < 1
    plain = next(loaded.generate([ask("Once upon a time", 8, "vanilla", sampling)]))
    assert tokens(plain) != tokens(completion)


# ---- the sampler


def test_the_seeded_sampler_draws_from_the_distribution() -> None:
    draws, size = 20_000, 12
    scores = torch.randn(size, generator=torch.Generator().manual_seed(1)) * 1.5
    scores[3] = -torch.inf
    uniforms = torch.rand(draws, 1, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    chosen = SeededSampler(uniforms)(torch.zeros(draws, 1, dtype=torch.long), scores.expand(draws, -1)).argmax(-1)
    counts = torch.bincount(chosen, minlength=size).double()
    expected = scores.double().softmax(-1) * draws
    assert counts[3] == 0
    kept = expected > 0
    assert chisquare(counts[kept], expected[kept]).pvalue > 0.01


def test_the_seeded_sampler_never_picks_what_was_ruled_out() -> None:
    edges = torch.tensor([[0.0], [1 - 2**-53]], dtype=torch.float64)
    scores = torch.tensor([-torch.inf, 0.0, 1.0, -torch.inf]).expand(2, -1)
    assert SeededSampler(edges)(torch.zeros(2, 1), scores).argmax(-1).tolist() == [1, 2]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA, whose synchronisations are what is counted")
@pytest.mark.parametrize("signal", ["state", "both"])
def test_a_step_does_not_wait_for_the_device(signal: Any) -> None:
    model = small("llama").to("cuda")
    try:
        with torch.no_grad(), esamp.explore(model, ESampConfig(signal=signal), samples_per_prompt=2) as run:
            ids = torch.tensor([[5, 6, 7]] * 2, device="cuda")
            out = model(ids, use_cache=True)
            step = torch.full((2, 1), 9, device="cuda")
            out = model(step, past_key_values=out.past_key_values)
            out = model(step, past_key_values=out.past_key_values)
            torch.cuda.set_sync_debug_mode("error")
            for _ in range(3):
                out = model(step, past_key_values=out.past_key_values)
        assert run.decode_steps == 4
    finally:
        torch.cuda.set_sync_debug_mode("default")
        model.to("cpu")


def test_stop_texts_with_a_tokenizer_that_cannot_spell() -> None:
    """The embedded model's tokenizer knows whole words only."""
    loaded = HFEngine.load(trace=True)
    free, cut = (
        next(
            loaded.generate(
                [Request("x", "Numbers 3 5 8 9 target 24", n=6, sampling=Sampling(max_tokens=40, stop=stop))]
            )
        )
        for stop in ((), ("try", "left 8"))
    )
    assert any("left 8" in sample.text for sample in free.samples)
    for whole, sample in zip(free.samples, cut.samples, strict=True):
        ends = [place for stop in ("try", "left 8") if (place := whole.text.find(stop)) >= 0]
        assert sample.text == whole.text[: min(ends, default=None)]
        assert (sample.finish_reason == "stop") == (bool(ends) or whole.finish_reason == "stop")


def test_out_of_memory_says_what_to_lower() -> None:
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    crowded = engine(batch_rows=7)
    hook = crowded.model.register_forward_hook(full)
    try:
        with pytest.raises(UnsupportedError, match="7 samples side by side: lower batch_rows"):
            next(crowded.generate([ask(method="vanilla")]))
    finally:
        hook.remove()


def test_without_a_limit_the_context_is_one() -> None:
    free = [ask(text, sampling=Sampling()) for text in ("x" * 10, "y" * 20, "z" * 250)]
    completions = list(engine().generate(free))
    most = [max(len(sample.token_ids) for sample in completion.samples) for completion in completions]
    assert max(most) <= 192  # 256 - 21 and 256 - 11, in steps of 64
    assert most[2] <= 6
    with pytest.raises(InputError, match="shorten it"):
        next(engine().generate([ask("x" * 300, sampling=Sampling())]))


def test_end_of_sequence_counts_as_a_token_and_stops() -> None:
    model = small("llama")
    completion = next(engine().generate([ask(n=16, method="vanilla", sampling=Sampling(max_tokens=60))]))
    assert model.generation_config.eos_token_id == EOS
    ended = [sample for sample in completion.samples if sample.finish_reason == "stop"]
    assert ended
    assert all(sample.token_ids[-1] == EOS and EOS not in sample.token_ids[:-1] for sample in ended)
    assert all(len(s.token_ids) == 60 for s in completion.samples if s.finish_reason == "length")


def test_a_repetition_penalty_does_not_punish_padding() -> None:
    """A shorter prompt beside a longer one is penalised as it is alone."""
    engine = HFEngine.load(batch_rows=8)
    sampling = Sampling(repetition_penalty=1.7, max_tokens=12, temperature=0)
    short, long = "Numbers 3 5 target 8", "Numbers 3 5 8 9 12 14 target 24\ntry 3 + 5 = 8"
    alone = [next(engine.generate([Request("x", text, method="vanilla", sampling=sampling)])) for text in (short, long)]
    both = list(engine.generate([Request(text, text, method="vanilla", sampling=sampling) for text in (short, long)]))
    assert [one.samples[0].token_ids for one in both] == [one.samples[0].token_ids for one in alone]


def test_a_repetition_penalty_by_hand() -> None:
    scores = torch.tensor([[2.0, -2.0, 1.0, -1.0], [2.0, -2.0, 1.0, -1.0]])
    ids = torch.tensor([[0, 0, 1], [2, 3, 3]])
    found = RepetitionPenalty(2.0, [2, 0])(ids, scores)  # the first row has two tokens of padding
    assert found.tolist() == [[2.0, -4.0, 1.0, -1.0], [2.0, -2.0, 0.5, -2.0]]
