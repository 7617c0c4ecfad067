"""`explore`: exploration around the user's own ``model.generate(...)`` calls."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Literal

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from esamp.engines.checks import refuse_token_logprobs
from esamp.engines.hf.exploration import HFExploration
from esamp.engines.hf.groups import PromptGroups
from esamp.engines.hf.head import probe
from esamp.engines.hf.hooks import ModelHooks, layer_stack
from esamp.engines.hf.prompt_batch import token_list
from esamp.engines.hf.run import Run
from esamp.engines.text import line_breaks
from esamp.errors import OptionError, UnsupportedError
from esamp.methods import registry
from esamp.methods.base import DecodeMethod
from esamp.options import Options

COMPILER = "torch._dynamo.exc"
"""Module of the errors that torch.compile raises when it cannot trace code."""


class InactiveMethodWarning(UserWarning):
    """`explore` saw prompts but not one decode step."""


@contextmanager
def explore(
    model: PreTrainedModel,
    options: Options | None = None,
    *,
    samples_per_prompt: int | None = None,
    method: str = "esamp",
    slots: int = 64,
    telemetry: Literal["full", "basic"] | None = None,
    trace: bool = False,
    token_logprobs: bool = False,
    tokenizer: PreTrainedTokenizerBase | None = None,
    seed: int = 0,
    eos_token_id: int | list[int] | None = None,
    pad_token_id: int | None = None,
) -> Iterator[Run]:
    """Explore in every ``run.generate(...)`` call inside the block, and in plain ``model.generate(...)`` calls.

    Neighbouring rows with the same prompt form a group, as with ``num_return_sequences``. Calls with the same prompt
    share a group, so that later waves of samples learn from earlier ones.

    Args:
        model: any decoder-only transformers model, on any device, in any precision.
        options: the method's options, `ESampConfig` by default.
        samples_per_prompt: rows per group within one call, if neighbours with equal prompts are not all one group.
        method: name of a decoding method.
        slots: most groups kept at a time; memory grows with the number of groups, up to this one.
        telemetry: "full" adds KL, the length of the error and its cosine with the sampled token, for which the
            reference states are projected beside the steered ones; by default "basic", or "full" with a trace.
        trace: keep the measurements of every token (`Run.trace`).
        token_logprobs: keep the log-probabilities of every token (`Run.token_logprobs`). The model's own state is then
            projected beside the steered one.
        tokenizer: the model's, for methods that need the tokens that contain line breaks.
        seed: for methods that draw random numbers of their own.
        eos_token_id: end of sequence, by default the model's. Only plain ``model.generate`` calls use it, to find the
            rows that are finished.
        pad_token_id: the input of finished rows, by default the model's; also for plain calls only.

    Raises:
        UnsupportedError: encoder-decoder models, beam search, assisted decoding, models without an LM head, models that
            are being explored already, two threads that use the model at once.
        OptionError: options that do not exist or do not fit the model.
    """
    chosen = registry.get(method)
    if not issubclass(chosen, DecodeMethod):
        remedy = (
            "pass its settings to generate()"
            if chosen.kind == "sampler"
            else "run it by esamp.answer(HFEngine(...), ...)"
        )
        raise OptionError(f"method {method!r} ({chosen.kind}) does not act on hidden states or logits: {remedy}")
    if slots < 1 or (samples_per_prompt is not None and samples_per_prompt < 1):
        raise OptionError(f"samples_per_prompt = {samples_per_prompt} and slots = {slots} must both be at least 1")
    if token_logprobs:
        refuse_token_logprobs(method)
    options = chosen.options() if options is None else options
    config = _checked(model)
    layers = chosen.layers(options, len(layer_stack(model)))
    with _explained_compiler_errors():
        shape, head = probe(model, layers)
    if tokenizer is not None:
        shape = replace(shape, line_breaks=partial(line_breaks, tokenizer), tokens=tokenizer.get_vocab)
    built = chosen.build(options, shape, slots=1, full=(telemetry or ("full" if trace else "basic")) == "full")
    eos = eos_token_id if eos_token_id is not None else config.eos_token_id
    pad = pad_token_id if pad_token_id is not None else config.pad_token_id
    groups = PromptGroups(built, samples_per_prompt, slots)
    run = Run(
        model,
        HFExploration(built, groups, head, shape.device, trace=trace, keep_reference=token_logprobs),
        stops=token_list(eos),
        pad=pad,
        seed=seed,
        trace=trace,
        token_logprobs=token_logprobs,
    )
    if _has_compiled_code(model):
        torch.compiler.reset()  # code compiled without the hooks would not call them
    hooks = ModelHooks(model, layers, run)
    try:
        with _explained_compiler_errors():
            yield run
    finally:
        hooks.remove()
        if _has_compiled_code(model):
            torch.compiler.reset()  # code compiled with them would keep their graph breaks
    run.close()
    _warn_if_inactive(run)


def _warn_if_inactive(run: Run) -> None:
    if run.prompts_seen and not run.decode_steps and not run.method.first_token and not run.refused:
        warnings.warn(
            "explore() saw prompts but no decode step: nothing was explored (was only one token generated?)",
            InactiveMethodWarning,
            stacklevel=4,
        )


@contextmanager
def _explained_compiler_errors() -> Iterator[None]:
    """Replace errors of torch.compile, which it raises if it cannot trace the user's code around our hooks.

    Raises:
        UnsupportedError: in place of the compiler's own error; says what to do.
    """
    try:
        yield
    except RuntimeError as error:
        if type(error).__module__ != COMPILER:
            raise
        raise UnsupportedError(
            "the model could not be compiled around the hooks of explore(): compile it with fullgraph=False, which "
            f"lets compiled code stop at a hook ({type(error).__name__})"
        ) from error


def _checked(model: PreTrainedModel) -> GenerationConfig:
    """The model's generation settings; refuses a model that cannot be explored."""
    if not isinstance(model, PreTrainedModel):
        raise UnsupportedError(
            f"{type(model).__name__} wraps a model: pass the transformers model inside "
            "(PEFT: model.get_base_model(); torch.compile: the model as it was), and generate with either"
        )
    if not model.can_generate():
        raise UnsupportedError(f"{type(model).__name__} has no LM head: load it with AutoModelForCausalLM")
    return model.generation_config


def _has_compiled_code(model: PreTrainedModel) -> bool:
    """Whether ``generate`` compiled the decode step, or the user the model's forward pass or one of its modules.

    Two private attributes show it: ``_compiled_call``, which transformers' ``generate`` stores in the model, and
    ``_compiled_call_impl``, which PyTorch's ``Module.compile`` sets. Neither library offers a public way to ask.
    """
    return "_compiled_call" in vars(model) or any(
        "forward" in vars(module) or module._compiled_call_impl is not None for module in model.modules()
    )
