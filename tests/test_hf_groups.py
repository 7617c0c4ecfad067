"""Who shares what with whom, which rows take part, and what happens when numbers go wrong."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel, StoppingCriteriaList

import esamp
from esamp import ESampConfig, Run
from esamp.engines.hf import EndingsWarning, GroupingWarning
from esamp.errors import InputError
from support.hf_models import EOS, PAD, small, small_tokenizer

A, B, C = (torch.tensor([[start, start + 1, start + 2, start + 3]]) for start in (5, 20, 40))
STRONG = ESampConfig(beta=4)
LOGITS = dict(return_dict_in_generate=True, output_logits=True)
SOME_ENDS = list(range(60, 90))
"""End-of-sequence tokens that a random model samples every few tokens."""

both_calls = pytest.mark.parametrize("own_call", [False, True], ids=["model.generate", "run.generate"])


def generate(run: Run, own_call: bool, prompts: Tensor | None, samples: int = 2, tokens: int = 4, **kwargs: Any) -> Any:
    call = run.generate if own_call else run.model.generate
    arguments = dict(do_sample=True, max_new_tokens=tokens, num_return_sequences=samples, pad_token_id=PAD, top_k=0)
    return call(prompts, **(arguments | dict(suppress_tokens=[PAD, EOS]) | kwargs))


def updates(own_call: bool, tokens: int = 4) -> int:
    return tokens - 1 if own_call else tokens - 2


# ---- rows that are finished


@both_calls
def test_finished_rows_are_neither_steered_nor_learned_from(own_call: bool) -> None:
    model, samples, tokens = small("llama"), 8, 12
    prompts = torch.cat([A, B])
    with esamp.explore(model, STRONG, samples_per_prompt=samples, eos_token_id=SOME_ENDS, pad_token_id=PAD) as run:
        out = generate(run, own_call, prompts, samples, tokens, eos_token_id=SOME_ENDS, suppress_tokens=[PAD], **LOGITS)
    texts = out.sequences[:, 4:]
    length = texts.shape[1]
    ended = torch.isin(texts, torch.tensor(SOME_ENDS)).cumsum(1) > 0
    assert 0.1 < ended[:, : length - 1].float().mean() < 0.9
    seen = length - 1 if own_call else length - 2
    assert [run.telemetry(group)["rows"] for group in (0, 1)] == [
        (~ended[rows, :seen]).sum().item() for rows in (slice(0, samples), slice(samples, None))
    ]
    assert [run.telemetry(group)["updates"] for group in (0, 1)] == [
        (~ended[rows, :seen]).any(0).sum().item() for rows in (slice(0, samples), slice(samples, None))
    ]
    mask = torch.ones_like(out.sequences)
    with torch.no_grad():
        plain = model(out.sequences, attention_mask=mask).logits[:, 3:-1]
    changed = (torch.stack(out.logits, dim=1) - plain).abs().amax(-1)
    assert changed[:, 1:][ended[:, :-1]].max() < 1e-4
    assert changed[:, 0].max() < 1e-4
    assert changed[:, 2:][~ended[:, 1:-1]].max() > 1e-2


def ends_with_even(input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
    return input_ids[:, -1] % 2 == 0


def test_rows_that_the_user_s_criteria_end_are_finished_too() -> None:
    with esamp.explore(small("llama"), STRONG, samples_per_prompt=6) as run:
        criteria = StoppingCriteriaList([ends_with_even])
        out = generate(run, True, A, 6, 8, stopping_criteria=criteria, **LOGITS)
    texts = out.sequences[:, 4:]
    ended = (texts % 2 == 0).cumsum(1) > 0
    assert run.telemetry()["rows"] == (~ended[:, :-1]).sum()
    assert (~ended[:, :-1]).sum() > 0


def test_rows_that_a_stop_text_ends_are_finished_too() -> None:
    tokenizer = small_tokenizer()
    stops = ["A", "K", "Z", "a", "k", "z", "0", "9"]
    with esamp.explore(small("llama"), STRONG, samples_per_prompt=6) as run:
        out = generate(run, True, A, 6, 8, stop_strings=stops, tokenizer=tokenizer)
    ids = torch.tensor([tokenizer.convert_tokens_to_ids(stop) for stop in stops])
    ended = torch.isin(out[:, 4:], ids).cumsum(1) > 0
    assert ended.any()
    assert run.telemetry()["rows"] == (~ended[:, :-1]).sum()
    with esamp.explore(small("llama")) as run, pytest.raises(esamp.EsampError, match="tokenizer="):
        run.generate(A, stop_strings=stops)


def test_a_running_row_that_samples_the_padding_token_goes_on_exploring() -> None:
    model = small("llama")
    force = StoppingCriteriaList()

    def pad_once(input_ids: Tensor, scores: Tensor) -> Tensor:
        if input_ids.shape[1] != 6:
            return scores
        return torch.full_like(scores, -torch.inf).index_fill_(1, torch.tensor([PAD]), 0.0)

    with esamp.explore(model, STRONG) as run:
        generate(run, True, A, tokens=8, logits_processor=[pad_once], stopping_criteria=force)
        assert run.telemetry()["rows"] == 7 * 2
    with pytest.warns(EndingsWarning, match=r"behind token 2.*run\.generate"), esamp.explore(model, STRONG) as run:
        generate(run, False, A, tokens=8, logits_processor=[pad_once], stopping_criteria=force)
    assert run.telemetry()["rows"] == 6 * 2 - 2 - 2  # neither the step that ended in the padding token nor the next one


# ---- groups


@both_calls
def test_blocks_must_be_samples_of_one_prompt(own_call: bool) -> None:
    prompts = torch.cat([A, B])
    with esamp.explore(small("llama"), samples_per_prompt=3) as run, pytest.raises(InputError, match="do not divide"):
        generate(run, own_call, prompts)
    with esamp.explore(small("llama"), samples_per_prompt=4) as run, pytest.raises(InputError, match="rows 0 to 3"):
        generate(run, own_call, prompts)


@both_calls
@pytest.mark.parametrize("pad", [PAD, EOS], ids=["pad", "pad is eos"])
def test_calls_with_the_same_prompt_share_a_group_however_it_is_padded(own_call: bool, pad: int) -> None:
    padded = torch.cat([torch.tensor([[pad, pad]]), A], dim=1)
    longer = torch.tensor([[30, 31, 32, 33, 34, 35]])
    mask = torch.tensor([[1] * 6, [0, 0, 1, 1, 1, 1]])
    once = updates(own_call)
    for static in ({}, dict(cache_implementation="static")):
        with esamp.explore(small("llama"), STRONG, samples_per_prompt=2, pad_token_id=pad) as run:
            generate(run, own_call, A, pad_token_id=pad, **static)
            assert run.telemetry(0)["updates"] == once
            generate(run, own_call, torch.cat([longer, padded]), attention_mask=mask, pad_token_id=pad, **static)
            assert [run.telemetry(group)["updates"] for group in (0, 1)] == [once, 2 * once]
            run.new_groups()
            generate(run, own_call, A, pad_token_id=pad, **static)
            assert run.telemetry(0)["updates"] == once


def test_a_prompt_that_begins_with_the_padding_token_is_a_prompt_of_its_own() -> None:
    begun = torch.cat([torch.tensor([[PAD]]), A], dim=1)
    with esamp.explore(small("llama"), STRONG, samples_per_prompt=2) as run:
        for prompt in (A, begun):
            generate(run, True, prompt, attention_mask=torch.ones_like(prompt))
            assert run.telemetry(0)["updates"] == updates(True)


@both_calls
def test_the_second_wave_is_steered_from_its_first_step(own_call: bool) -> None:
    with esamp.explore(small("llama"), STRONG) as run:
        for wave, size in enumerate((3, 2, 1)):
            run.samples_per_prompt = size
            generate(run, own_call, A, size)
            told = run.telemetry()
            assert told["rows"] - told["rows_steered"] == 3  # the very first step, whose group had seen nothing
            assert told["updates"] == (wave + 1) * updates(own_call)


@both_calls
@pytest.mark.parametrize("distiller", ["rls", "mlp", "mean"])
def test_a_neighbour_in_the_batch_leaves_no_trace(own_call: bool, distiller: Any) -> None:
    model, states = small("llama"), []
    for prompts in (A, torch.cat([B, A, C])):
        rows = prompts.repeat_interleave(2, 0)
        options = ESampConfig(distiller=distiller, beta=1)
        with esamp.explore(model, options, samples_per_prompt=2) as run:
            generate(run, own_call, rows, 1, 6, do_sample=False)
            slot = run._exploration.groups.latest[len(prompts) // 2]
            states.append({name: tensor[slot] for name, tensor in run.method.explorer.bank.tensors.items()})
    torch.testing.assert_close(states[1], states[0], atol=1e-4, rtol=1e-4)


@both_calls
def test_the_same_prompt_twice_in_a_batch_makes_two_groups_only_if_that_is_said(own_call: bool) -> None:
    warns = nullcontext() if own_call else pytest.warns(GroupingWarning, match="leave samples_per_prompt out")
    with esamp.explore(small("llama"), STRONG, samples_per_prompt=2) as run:
        for calls in (1, 2):
            with warns if calls == 1 else nullcontext():  # once
                generate(run, own_call, torch.cat([A, A]))
            assert [run.telemetry(group)["updates"] for group in (0, 1)] == [calls * updates(own_call)] * 2
    with esamp.explore(small("llama"), STRONG) as run:
        generate(run, own_call, torch.cat([A, A]))
        assert run.telemetry(0)["rows"] == 4 * updates(own_call)
        assert run.telemetry(0)["updates"] == updates(own_call)


@both_calls
def test_the_group_unused_for_longest_makes_room(own_call: bool) -> None:
    with esamp.explore(small("llama"), STRONG, samples_per_prompt=2, slots=2) as run:
        seen = []
        for prompt in (A, B, A, C, A, B):
            generate(run, own_call, prompt)
            seen.append(run.telemetry(0)["updates"] / updates(own_call))
    assert seen == [1, 1, 2, 1, 3, 1]
    assert run.telemetry()["groups_refused"] == 0


@both_calls
def test_groups_beyond_the_slots_run_as_without_us_and_are_counted(own_call: bool) -> None:
    model, prompts = small("llama"), torch.cat([A, B, C])
    torch.manual_seed(3)
    alone = model.generate(
        prompts, do_sample=True, max_new_tokens=4, num_return_sequences=2, top_k=0, suppress_tokens=[PAD, EOS], **LOGITS
    )
    for telemetry in ("full", "basic"):
        torch.manual_seed(3)
        with esamp.explore(model, STRONG, samples_per_prompt=2, slots=2, telemetry=telemetry) as run:
            out = generate(run, own_call, prompts, **LOGITS)
        assert run.telemetry()["groups_refused"] == 1
        assert run.telemetry(2) == {"groups_refused": 1.0}
        assert run.telemetry(0)["rows_steered"] > 0
        assert torch.equal(out.sequences[4:], alone.sequences[4:])
        for mine, theirs in zip(out.logits, alone.logits, strict=True):
            if telemetry == "basic":
                assert torch.equal(mine[4:], theirs[4:])
            torch.testing.assert_close(mine[4:], theirs[4:], atol=1e-6, rtol=1e-6)
        assert not torch.equal(out.logits[-1][:4], alone.logits[-1][:4])


@both_calls
def test_one_distiller_for_all_is_opt_in(own_call: bool) -> None:
    with esamp.explore(small("llama"), STRONG.replace(scope="batch"), samples_per_prompt=2, slots=1) as run:
        generate(run, own_call, torch.cat([A, B, C]))
        assert run.telemetry()["groups_refused"] == 0
        assert run.telemetry()["updates"] == updates(own_call)
        generate(run, own_call, torch.cat([A, B, C]))
        assert run.telemetry()["updates"] == 2 * updates(own_call)
        assert run._exploration.groups.first == [2, 2, 2]  # a call's own groups are kept, however many they are


@both_calls
def test_embeddings_make_groups_by_their_contents(own_call: bool) -> None:
    model = small("llama")
    embed = model.get_input_embeddings()
    with torch.no_grad(), esamp.explore(model, STRONG, samples_per_prompt=2) as run:
        seen = []
        for prompt in (A, B, A):
            generate(run, own_call, None, inputs_embeds=embed(prompt))
            seen.append(run.telemetry(0)["updates"] / updates(own_call))
    assert seen == [1, 1, 2]


@both_calls
@pytest.mark.parametrize("whole", [False, True], ids=["suffix", "whole prompt"])
def test_a_prompt_behind_a_cache_shares_with_nobody_unless_it_is_known(own_call: bool, whole: bool) -> None:
    model, seen, caches = small("llama"), [], []
    for prefix in (A, B, A):
        caches.append(DynamicCache(config=model.config))
        with torch.no_grad():
            model(prefix, past_key_values=caches[-1])
    with esamp.explore(model, STRONG, samples_per_prompt=1) as run:
        for prefix, cache in zip((A, B, A), caches, strict=True):
            text = torch.cat([prefix, C], dim=1)
            prompt = text if whole else C
            generate(run, own_call, prompt, 1, past_key_values=cache, attention_mask=torch.ones_like(text))
            seen.append(run.telemetry(0)["updates"] / updates(own_call))
    assert seen == ([1, 1, 2] if whole and own_call else [1, 1, 1])


@both_calls
def test_a_conversation_goes_on_in_the_same_cache(own_call: bool) -> None:
    model = small("llama")
    cache = DynamicCache(config=model.config)
    with esamp.explore(model, STRONG, samples_per_prompt=1) as run:
        text = generate(run, own_call, A, 1, past_key_values=cache)
        text = torch.cat([text, B], dim=1)
        generate(run, own_call, text, 1, past_key_values=cache)
        assert run.telemetry()["updates"] == 2 * updates(own_call)
        assert run.telemetry(0)["updates"] == updates(own_call)


def test_passes_by_hand_inside_the_block_are_prefill() -> None:
    model = small("llama")
    with torch.no_grad(), esamp.explore(model, STRONG) as run:
        texts = [torch.cat([A, B], dim=1)[:, :length] for length in (3, 5, 6, 8)]
        expected = [model(text).logits for text in texts]
        model(torch.cat([C, C, C[:, :1]], dim=1))
        assert run.decode_steps == 1  # 5 and 6 tokens of the same text look like decoding without a cache
    assert [len(logits[0]) for logits in expected] == [3, 5, 1, 8]


# ---- numbers that are no numbers


@contextmanager
def broken_source(model: PreTrainedModel, row: int) -> Iterator[None]:
    """NaN in what the first layer shows of one row at decode steps; the model itself goes on with good numbers."""
    kept: list[Tensor] = []

    def spoil(module: Any, args: Any, output: Tensor) -> Tensor | None:
        if output.shape[1] > 1 or len(output) == 1:
            return None
        kept.append(output)
        return output.index_fill(0, torch.tensor([row]), torch.nan)

    def restore(module: Any, args: Any) -> Any:
        return (kept.pop(), *args[1:]) if kept else None

    handles = [
        model.model.layers[0].register_forward_hook(spoil),
        model.model.layers[1].register_forward_pre_hook(restore),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@both_calls
@pytest.mark.parametrize("distiller", ["rls", "mlp", "mean"])
@pytest.mark.parametrize("architecture", ["llama", "gemma2"])
def test_a_row_with_a_broken_state_is_left_alone_and_breaks_no_other_group(
    architecture: str, distiller: Any, own_call: bool
) -> None:
    model, prompts = small(architecture), torch.cat([A, B]).repeat_interleave(2, 0)
    greedy = dict(samples=1, tokens=6, do_sample=False, **LOGITS)
    options = ESampConfig(distiller=distiller, beta=1, gate=distiller != "mlp")
    with esamp.explore(model, options, samples_per_prompt=2) as run:
        sound = generate(run, own_call, prompts, **greedy)
    with broken_source(model, row=1), esamp.explore(model, options, samples_per_prompt=2) as run:
        broken = generate(run, own_call, prompts, **greedy)
    with torch.no_grad():
        alone = model(broken.sequences).logits[:, 3:-1]
    steps = updates(own_call, 6)
    assert run.telemetry(0)["resets"] == (steps if distiller == "mlp" else 0)  # a network adds its rows up
    assert run.telemetry(0)["rows"] == (2 if distiller == "mean" else 1) * steps  # the mean reads no source
    assert run.telemetry(1)["resets"] == 0
    assert run.telemetry(1)["updates"] == steps
    for step, (mine, theirs) in enumerate(zip(broken.logits, sound.logits, strict=True)):
        assert mine.isfinite().all()
        torch.testing.assert_close(mine[2:], theirs[2:], atol=1e-4, rtol=1e-4)
        if distiller != "mean":
            torch.testing.assert_close(mine[1], alone[1, step], atol=1e-4, rtol=1e-4)


@both_calls
def test_a_row_whose_own_logits_are_broken_does_not_break_its_neighbours(own_call: bool) -> None:
    model, prompts = small("llama"), torch.cat([A, B]).repeat_interleave(2, 0)

    def spoil(module: Any, args: Any, output: Tensor) -> Tensor:
        return output.index_fill(0, torch.tensor([1]), torch.nan) if output.shape[:2] == (4, 1) else output

    with esamp.explore(model, STRONG, samples_per_prompt=2) as run:
        sound = generate(run, own_call, prompts, 1, 6, do_sample=False, **LOGITS)
    handle = model.model.norm.register_forward_hook(spoil)
    with esamp.explore(model, STRONG, samples_per_prompt=2) as run:
        broken = generate(run, own_call, prompts, 1, 6, do_sample=False, **LOGITS)
    handle.remove()
    assert [run.telemetry(group)["resets"] for group in (0, 1)] == [0, 0]
    assert [run.telemetry(group)["rows"] for group in (0, 1)] == [updates(own_call, 6), 2 * updates(own_call, 6)]
    for mine, theirs in zip(broken.logits[1:], sound.logits[1:], strict=True):
        assert mine[1].isnan().all()
        assert mine[[0, 2, 3]].isfinite().all()
        torch.testing.assert_close(mine[2:], theirs[2:], atol=1e-4, rtol=1e-4)
