"""`explore` around generate calls that it does not drive: what it finds out by itself, what it refuses or warns of.

Each case comes in two forms where that makes sense: ``run.generate``, which knows, and plain ``model.generate``.
"""

import copy
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from accelerate import cpu_offload
from torch import Tensor
from transformers import CompileConfig, DynamicCache, LogitsProcessorList, PreTrainedModel, StoppingCriteriaList

import esamp
from esamp import ESampConfig, Run
from esamp.engines.hf import EndingsWarning
from esamp.engines.hf.observed.endings import Endings
from esamp.engines.hf.observed.passes import Pass, PassTracker
from esamp.engines.hf.prompt_batch import find_cache, holds_tokens
from esamp.errors import InputError, OptionError, UnsupportedError
from support.hf_models import EOS, PAD, count_hooks, small

A, B = (torch.tensor([[start, start + 1, start + 2, start + 3, start + 4]]) for start in (5, 20))
STRONG = ESampConfig(beta=4)
SOME_ENDS = list(range(60, 90))
"""End-of-sequence tokens that a random model samples every few tokens."""
SAMPLES, TOKENS = 8, 12

both_calls = pytest.mark.parametrize("own_call", [False, True], ids=["model.generate", "run.generate"])
caches = pytest.mark.parametrize("use_cache", [True, False], ids=["cache", "no cache"])


def generate(run: Run, own_call: bool, prompts: Tensor, **kwargs: Any) -> Any:
    call = run.generate if own_call else run.model.generate
    usual = dict(do_sample=True, top_k=0, max_new_tokens=TOKENS, num_return_sequences=SAMPLES, pad_token_id=PAD)
    return call(prompts, **(usual | dict(suppress_tokens=[PAD, EOS]) | kwargs))


def steps(own_call: bool, tokens: int = TOKENS) -> int:
    """Steps learned from, of a call with so many tokens."""
    return tokens - 1 if own_call else tokens - 2


@contextmanager
def without_end_tokens(model: PreTrainedModel) -> Iterator[None]:
    """The model's settings as those of a base model that has neither an end-of-sequence nor a padding token."""
    config = model.generation_config
    kept = config.eos_token_id, config.pad_token_id
    config.eos_token_id = config.pad_token_id = None
    try:
        yield
    finally:
        config.eos_token_id, config.pad_token_id = kept


# ---- groups


@both_calls
def test_samples_of_a_prompt_are_found_by_themselves(own_call: bool) -> None:
    with esamp.explore(small("llama"), STRONG) as run:
        generate(run, own_call, torch.cat([A, B]))
        assert [run.telemetry(group)["updates"] for group in (0, 1)] == [steps(own_call)] * 2
        assert [run.telemetry(group)["rows"] for group in (0, 1)] == [SAMPLES * steps(own_call)] * 2


@both_calls
def test_groups_may_be_of_any_sizes(own_call: bool) -> None:
    with esamp.explore(small("llama"), STRONG) as run:
        generate(run, own_call, torch.cat([A, A, A, B]), num_return_sequences=1)
        assert [run.telemetry(group)["rows"] for group in (0, 1)] == [3 * steps(own_call), steps(own_call)]


def test_a_group_size_that_splits_the_samples_of_a_prompt_is_refused() -> None:
    with esamp.explore(small("llama"), samples_per_prompt=1) as run, pytest.raises(OptionError, match="set it to 8"):
        generate(run, True, A)


@both_calls
def test_equal_rows_behind_an_unknown_cache_are_not_taken_for_one_group(own_call: bool) -> None:
    model = small("llama")
    cache = DynamicCache(config=model.config)
    with torch.no_grad():
        model(torch.cat([A, B]), past_key_values=cache)
    same_end = torch.cat([B, B])
    mask = torch.ones(2, 10, dtype=torch.long)
    with esamp.explore(model, STRONG) as run, pytest.raises(InputError, match="set samples_per_prompt"):
        generate(run, own_call, same_end, past_key_values=cache, attention_mask=mask, num_return_sequences=1)


@pytest.mark.parametrize("architecture", ["llama", "mamba", "lfm2"])
def test_caches_of_every_kind_tell_whether_they_hold_tokens(architecture: str) -> None:
    model = small(architecture)
    assert not holds_tokens(DynamicCache(config=model.config))
    with torch.no_grad():
        assert holds_tokens(find_cache(vars(model(A, use_cache=True))))


# ---- ends of samples


def live_rows(texts: Tensor, ends: list[int], seen: int) -> int:
    """Rows that are not finished at each of the decode steps whose tokens are among the first `seen`."""
    ended = torch.isin(texts, torch.tensor(ends)).cumsum(1) > 0
    return int((~ended[:, :seen]).sum())


def test_run_generate_knows_end_tokens_of_the_call() -> None:
    model = small("llama")
    with without_end_tokens(model), esamp.explore(model, STRONG) as run:
        out = generate(run, True, A, eos_token_id=SOME_ENDS, pad_token_id=None)
        assert run.telemetry()["rows"] == live_rows(out[:, 5:], SOME_ENDS, out.shape[1] - 6)


def test_end_tokens_that_only_the_call_has_are_warned_of() -> None:
    model, ends = small("llama"), SOME_ENDS[:6]
    how: dict[str, Any] = dict(eos_token_id=ends, pad_token_id=None, max_new_tokens=24)
    with without_end_tokens(model):
        told = r"nothing but token 60 .*explore\(eos_token_id=.*run\.generate"
        torch.manual_seed(0)
        with pytest.warns(EndingsWarning, match=told), esamp.explore(model, STRONG) as run:
            generate(run, False, A, **how)
        with esamp.explore(model, STRONG, eos_token_id=ends) as run:
            out = generate(run, False, A, **how)
    texts = out[:, 5:]
    seen = texts.shape[1] - 2
    ended = torch.isin(texts, torch.tensor(ends)).cumsum(1) > 0
    assert 0.1 < ended.float().mean() < 0.9
    certain = texts[:, 1 : seen + 1] != ends[0]  # which is the padding as well, so nothing is learned from it
    assert run.telemetry()["rows"] == (~ended[:, :seen] & certain).sum()


def test_rows_that_go_on_behind_the_model_s_end_token_go_on_exploring() -> None:
    def end_once(input_ids: Tensor, scores: Tensor) -> Tensor:
        at = A.shape[1] + 3
        return (
            torch.full_like(scores, -9.0).index_fill(1, torch.tensor([EOS]), 9.0)
            if input_ids.shape[1] == at
            else scores
        )

    how: dict[str, Any] = dict(eos_token_id=95, suppress_tokens=[PAD, 95], logits_processor=[end_once])
    with pytest.warns(EndingsWarning, match="went on behind a token"), esamp.explore(small("llama"), STRONG) as run:
        out = generate(run, False, A, **how)
    assert (out[:, A.shape[1] + 3] == EOS).all()
    assert run.telemetry()["rows"] >= SAMPLES * (steps(False) - 2)  # all but the step at which they seemed to end


def ends_with_even(input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
    return input_ids[:, -1] % 2 == 0


@both_calls
def test_nothing_is_learned_behind_a_criterion_where_padding_is_the_end_token(own_call: bool) -> None:
    model = small("llama")
    with esamp.explore(model, STRONG, eos_token_id=EOS, pad_token_id=EOS) as run:
        out = generate(run, own_call, A, pad_token_id=EOS, stopping_criteria=StoppingCriteriaList([ends_with_even]))
    texts = out[:, 5:]
    ended = (texts % 2 == 0).cumsum(1) > 0
    assert 0.1 < ended.float().mean() < 0.95
    seen = texts.shape[1] - (1 if own_call else 2)
    assert run.telemetry()["rows"] == (~ended[:, :seen]).sum()


def test_greedy_loops_are_not_taken_for_ended_rows() -> None:
    model = small("llama")
    flat = torch.zeros(96).index_fill(0, torch.tensor([50]), 0.1)  # the best token, but not a probable one
    handle = model.lm_head.register_forward_hook(lambda module, args, logits: 0 * logits + flat)
    with esamp.explore(model, STRONG) as run:
        out = generate(run, False, A.repeat(2, 1), do_sample=False, num_return_sequences=1)
    handle.remove()
    assert (out[:, 5:] == 50).all()


@pytest.mark.parametrize(
    ("repetitions", "best", "warned"), [(2, False, False), (3, False, True), (3, True, False)], ids=str
)
def test_a_row_that_repeats_an_improbable_token_is_taken_for_ended(repetitions: int, best: bool, warned: bool) -> None:
    """A token of 4.7 nats, so that three repetitions are less probable than exp(-12), unless it is the best one."""
    token = torch.tensor([7])
    logits = torch.zeros(1, 96).index_fill(1, token, 0.1 if best else -0.1)
    endings = Endings(torch.tensor([True]), [EOS], PAD)
    endings.see(token, None)
    for _ in range(repetitions):
        assert endings.see(token, logits).live.all()
    with pytest.warns(EndingsWarning, match="nothing but token 7") if warned else nullcontext():
        endings.report()


# ---- other uses of the model within the call


class Asks:
    """A logits processor or stopping criterion that asks the model for something else."""

    def __init__(self, model: PreTrainedModel, use_cache: bool = True) -> None:
        self.model, self.use_cache, self.heard = model, use_cache, []  # type: ignore[var-annotated]

    def ask(self, input_ids: Tensor) -> None:
        with torch.no_grad():
            self.heard.append(self.model(input_ids[:, -3:], use_cache=self.use_cache).logits[:, -1])


class AskingProcessor(Asks):
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.ask(input_ids)
        return scores


class AskingCriterion(Asks):
    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        self.ask(input_ids)
        return torch.zeros(len(input_ids), dtype=torch.bool)


OTHERS = {
    "guidance": lambda model: dict(guidance_scale=1.5),
    "processor": lambda model: dict(logits_processor=LogitsProcessorList([AskingProcessor(model)])),
    "processor without a cache": lambda model: dict(
        logits_processor=LogitsProcessorList([AskingProcessor(model, use_cache=False)])
    ),
    "criterion": lambda model: dict(stopping_criteria=StoppingCriteriaList([AskingCriterion(model)])),
}


@caches
@pytest.mark.parametrize("other", OTHERS)
def test_other_uses_of_the_model_are_refused_from_outside(other: str, use_cache: bool) -> None:
    model = small("llama")
    with esamp.explore(model, STRONG) as run, pytest.raises(UnsupportedError, match=r"run\.generate"):
        generate(run, False, A, use_cache=use_cache, **OTHERS[other](model))


@caches
@pytest.mark.parametrize("other", OTHERS)
def test_run_generate_leaves_other_uses_of_the_model_alone(other: str, use_cache: bool) -> None:
    model = small("llama")
    torch.manual_seed(0)
    with esamp.explore(model, STRONG) as run:
        out = generate(run, True, A, use_cache=use_cache, **OTHERS[other](model))
        assert run.telemetry()["rows"] == SAMPLES * steps(True)
        assert run.telemetry()["rows_steered"] == SAMPLES * (steps(True) - 1)
        assert run.prompts_seen == 1
    if other != "guidance":  # which changes what is sampled
        torch.manual_seed(0)
        with esamp.explore(model, STRONG) as run:
            assert torch.equal(out, generate(run, True, A, use_cache=use_cache))


def test_what_a_processor_hears_within_run_generate_is_the_model_alone() -> None:
    model = small("llama")
    asking = AskingProcessor(model)
    with esamp.explore(model, STRONG) as run:
        out = generate(run, True, A, logits_processor=LogitsProcessorList([asking]))
    with torch.no_grad():
        expected = model(out[:, -4:-1]).logits[:, -1]
    torch.testing.assert_close(asking.heard[-1], expected)


def test_the_next_call_works_after_a_refusal() -> None:
    model = small("llama")
    with esamp.explore(model, STRONG) as run:
        for _ in range(2):
            with pytest.raises(UnsupportedError, match="guidance_scale"):
                generate(run, False, A, guidance_scale=1.5)
            generate(run, False, B)
        assert run.telemetry(0)["updates"] == 2 * steps(False)


def test_calls_one_after_the_other_and_passes_by_hand_between_them_are_fine() -> None:
    model = small("llama")
    with esamp.explore(model, STRONG) as run, torch.no_grad():
        for prompt in (A, B, A):
            out = generate(run, False, prompt)
            model(out)  # a score
        assert run.telemetry(0)["updates"] == 2 * steps(False)


# ---- two at a time


def test_a_second_exploration_of_the_model_is_refused() -> None:
    model = small("llama")
    hooks = count_hooks(model)
    with esamp.explore(model) as run:
        with pytest.raises(UnsupportedError, match="being explored already"), esamp.explore(model):
            pass
        generate(run, False, A)
        assert run.telemetry()["updates"] == steps(False)
    assert count_hooks(model) == hooks
    with esamp.explore(model):
        pass


@both_calls
def test_a_second_thread_is_refused_and_the_first_call_ends_well(own_call: bool) -> None:
    model = small("llama")
    errors: list[Exception] = []
    started = threading.Event()

    def second(run: Run) -> None:
        try:
            started.wait(10)
            generate(run, False, B)
        except UnsupportedError as error:
            errors.append(error)

    class LetIn:
        """Lets the other thread run its first passes between two steps of this one."""

        def __init__(self) -> None:
            self.count = 0

        def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
            self.count += 1
            if self.count == 3:
                started.set()
                thread.join(20)
            return scores

    refused = nullcontext() if own_call else pytest.raises(UnsupportedError, match="another thread")
    with esamp.explore(model, STRONG) as run:
        thread = threading.Thread(target=second, args=(run,))
        thread.start()
        with refused:
            generate(run, own_call, A, logits_processor=LogitsProcessorList([LetIn()]))
        thread.join()
    if own_call:
        assert "two threads" in str(errors[0])
        assert run.telemetry()["rows"] == SAMPLES * steps(True)


def test_a_pass_while_another_thread_is_inside_the_model_is_refused() -> None:
    model = small("llama")
    inside, done = threading.Event(), threading.Event()

    def wait(module: Any, args: Any) -> None:
        if threading.current_thread() is not threading.main_thread():
            inside.set()
            done.wait(20)

    handle = model.model.layers[0].register_forward_pre_hook(wait)
    try:
        with esamp.explore(model) as run:
            thread = threading.Thread(target=generate, args=(run, False, A))
            thread.start()
            assert inside.wait(20)
            with pytest.raises(UnsupportedError, match="two threads"):
                generate(run, False, B)
            done.set()
            thread.join()
            assert run.telemetry()["updates"] == steps(False)
    finally:
        handle.remove()


def test_run_generate_within_run_generate_is_refused() -> None:
    def nested(input_ids: Tensor, scores: Tensor) -> Tensor:
        generate(run, True, B)
        return scores

    with esamp.explore(small("llama")) as run:
        with pytest.raises(UnsupportedError, match="running already"):
            generate(run, True, A, logits_processor=LogitsProcessorList([nested]))
        generate(run, True, A)


# ---- kinds of generation that cannot be explored


@pytest.mark.parametrize("tokens", [2, 6])
def test_beam_search_of_any_length_is_refused(tokens: int) -> None:
    with esamp.explore(small("llama")) as run, pytest.raises(UnsupportedError, match="num_beams=1"):
        generate(run, False, A, num_beams=4, num_return_sequences=4, do_sample=False, max_new_tokens=tokens)


def test_beam_search_without_a_cache_is_refused() -> None:
    with esamp.explore(small("llama")) as run, pytest.raises(UnsupportedError, match="num_beams=1"):
        generate(run, False, A, num_beams=4, num_return_sequences=4, do_sample=False, use_cache=False)


@both_calls
def test_the_model_as_its_own_assistant_is_refused(own_call: bool) -> None:
    model = small("llama")
    with esamp.explore(model) as run, pytest.raises(UnsupportedError, match="assist"):
        generate(run, own_call, A, assistant_model=model, num_return_sequences=1, do_sample=False)


def test_generate_batch_is_refused_by_its_name() -> None:
    with pytest.raises(UnsupportedError, match="generate_batch"):
        PassTracker().enter({"input_ids": A, "cu_seq_lens_q": torch.tensor([0, 5]), "cache": object()})


@both_calls
@pytest.mark.parametrize("cache", [None, "static"])
@pytest.mark.parametrize("chunk", [1, 2, 4, 5])
def test_the_last_piece_of_a_prompt_may_be_a_single_token(own_call: bool, chunk: int, cache: str | None) -> None:
    model = small("llama")
    torch.manual_seed(2)
    with esamp.explore(model, STRONG) as run:
        expected = generate(run, own_call, A)
    torch.manual_seed(2)
    with esamp.explore(model, STRONG) as run:
        got = generate(run, own_call, A, prefill_chunk_size=chunk, cache_implementation=cache)
        assert torch.equal(got, expected)
        assert run.telemetry()["rows"] == SAMPLES * steps(own_call)


def test_a_prompt_in_pieces_that_cannot_be_told_from_steps_is_refused() -> None:
    tracker, cache = PassTracker(), DynamicCache(config=small("llama").config)
    for piece in (A[:, :2], A[:, 2:4]):
        tracker.enter({"input_ids": piece, "past_key_values": cache})
        tracker.leave()
    with pytest.raises(UnsupportedError, match="prefill_chunk_size"):
        tracker.enter({"input_ids": A[:, 4:], "past_key_values": cache})


def test_a_cache_of_an_unknown_kind_is_followed_and_what_it_holds_is_not_known() -> None:
    class Own:
        """A cache of somebody's own model."""

    tracker, cache = PassTracker(), Own()
    kinds = []
    for piece in (A, A[:, :1], A[:, :1]):
        kinds.append(tracker.enter({"input_ids": piece, "past_key_values": cache}))
        tracker.leave()
    assert kinds == [Pass.PROMPT, Pass.STEP, Pass.STEP]
    assert not tracker.prompts.complete


def test_a_cache_that_is_a_tuple_is_refused() -> None:
    with pytest.raises(UnsupportedError, match=r"tuple.*run\.generate"):
        PassTracker().enter({"input_ids": A[:, :1], "past_key_values": ((torch.zeros(1), torch.zeros(1)),)})


def test_full_graphs_are_refused_by_their_name() -> None:
    with esamp.explore(small("llama")) as run, pytest.raises(UnsupportedError, match="fullgraph=False"):
        generate(run, True, A, compile_config=CompileConfig(fullgraph=True))


def test_a_model_that_was_compiled_as_a_full_graph_is_refused_by_its_name() -> None:
    model = small("llama", num_hidden_layers=1)
    try:
        model.forward = torch.compile(model.forward, backend="eager", fullgraph=True)
        with pytest.raises(UnsupportedError, match="fullgraph=False"), esamp.explore(model) as run:
            generate(run, False, A)
    finally:
        vars(model).pop("forward", None)
        torch.compiler.reset()


def test_tuples_are_refused_by_their_name() -> None:
    model = small("llama")
    with torch.no_grad(), esamp.explore(model, STRONG) as run:
        cache = DynamicCache(config=model.config)
        model(A, past_key_values=cache)
        with pytest.raises(UnsupportedError, match="return_dict=True"):
            model(A[:, :1], past_key_values=cache, return_dict=False)
        assert run.telemetry()["resets"] == 0


# ---- noise


@both_calls
@pytest.mark.parametrize("block", [None, 1], ids=["groups", "rows alone"])
def test_each_group_has_noise_of_its_own(own_call: bool, block: int | None) -> None:
    """Rows of equal states are moved in different directions, whatever their prompt."""
    model = small("llama")
    seeds = []
    with esamp.explore(model, method="esamp_noise", samples_per_prompt=block, seed=7) as run:
        generate(run, own_call, torch.cat([A, B]), num_return_sequences=1 if block else 2, max_new_tokens=4)
        with pytest.MonkeyPatch.context() as patch:
            steer = run.method.steer

            def watched(step: Any) -> Any:
                seeds.append((step.rows.seed.tolist(), step.rows.index.tolist()))
                return steer(step)

            patch.setattr(run.method, "steer", watched)
            generate(run, own_call, torch.cat([A, B]), num_return_sequences=1 if block else 2, max_new_tokens=4)
    rows = list(zip(*seeds[0], strict=True))
    assert len(set(rows)) == len(rows) == (2 if block else 4)
    if not block:
        assert rows[0][0] == rows[1][0] != rows[2][0] == rows[3][0]


@both_calls
def test_the_seed_of_explore_chooses_the_noise(own_call: bool) -> None:
    model, texts = small("llama"), []
    for seed in (7, 7, 0):
        torch.manual_seed(0)
        with esamp.explore(model, method="esamp_noise", seed=seed) as run:
            texts.append(generate(run, own_call, A, output_logits=True, return_dict_in_generate=True).logits[2])
    assert torch.equal(texts[0], texts[1])
    assert not torch.equal(texts[0], texts[2])


# ---- memory


@both_calls
def test_one_distiller_for_all_does_not_remember_groups_for_ever(own_call: bool) -> None:
    model = small("llama")
    with esamp.explore(model, STRONG.replace(scope="batch"), slots=3) as run:
        for start in range(3, 13):
            prompt = torch.tensor([[start, start + 1, start + 2]])
            generate(run, own_call, prompt, num_return_sequences=2, max_new_tokens=4)
        groups = run._exploration.groups
        assert len(groups._slots) <= 3
        assert len(groups._started) <= 3
        assert run.telemetry()["updates"] == run.telemetry(0)["updates"] == 10 * steps(own_call, 4)


# ---- heads


def test_an_offloaded_head_explores_states_and_says_what_it_cannot() -> None:
    model = copy.deepcopy(small("llama"))
    cpu_offload(model, execution_device=torch.device("cpu"))
    with pytest.raises(OptionError, match="is offloaded"), esamp.explore(model, ESampConfig(signal="action")):
        pass
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="You are calling .generate")  # transformers takes it for a mistake
        with esamp.explore(model, STRONG) as run:
            generate(run, True, A)
    assert run.telemetry()["rows_steered"] == SAMPLES * (steps(True) - 1)


def test_a_head_inside_an_adapter_is_called_that(monkeypatch: pytest.MonkeyPatch) -> None:
    class Adapter(torch.nn.Module):
        """A linear layer with a low-rank change beside it, as LoRA has it."""

        def __init__(self, base_layer: torch.nn.Module) -> None:
            super().__init__()
            self.base_layer = base_layer
            self.lora_A, self.lora_B = torch.nn.Linear(64, 2, bias=False), torch.nn.Linear(2, 96, bias=False)

        def forward(self, states: Tensor) -> Tensor:
            return self.base_layer(states) + self.lora_B(self.lora_A(states))  # type: ignore[no-any-return]

    model = small("llama")
    monkeypatch.setitem(model._modules, "lm_head", Adapter(model.lm_head))
    with pytest.raises(OptionError, match="LoRA"), esamp.explore(model, ESampConfig(signal="action")):
        pass
    with esamp.explore(model, STRONG) as run:
        generate(run, True, A)
    assert run.telemetry()["rows_steered"] > 0


@pytest.mark.parametrize("telemetry", ["full", "basic"])
@both_calls
def test_float16_that_overflows_behind_the_head_falls_back_without_a_reset(
    own_call: bool, telemetry: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = copy.deepcopy(small("llama", torch.float16))
    with torch.no_grad():
        model.lm_head.weight.mul_(2000 / model.lm_head.weight.abs().amax())  # logits of some ten thousand
        model.lm_head.weight[7] = model.lm_head.weight[7].abs() * 4
    options = ESampConfig(beta=16, distiller="mean", gate=False)
    with esamp.explore(model, options, telemetry=telemetry) as run:
        out = generate(run, own_call, A, do_sample=False, num_return_sequences=1, return_dict_in_generate=True,
                       output_logits=True)  # fmt: skip
    told = run.telemetry()
    assert all(logits.isfinite().all() for logits in out.logits)
    assert told["resets"] == 0
    assert told["rows"] == steps(own_call)
    assert told["rows_steered"] < told["rows"] - 1


def test_no_hook_stays_behind_where_a_model_has_no_head() -> None:
    class Headless(type(small("llama"))):  # type: ignore[misc]
        def get_output_embeddings(self) -> None:
            return None

    model = Headless(small("llama").config)
    hooks = count_hooks(model)
    with pytest.raises(UnsupportedError, match="no LM head"), esamp.explore(model):
        pass
    assert count_hooks(model) == hooks
