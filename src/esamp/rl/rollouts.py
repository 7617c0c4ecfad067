"""`Rollouts`: TRL's rollout function. It draws each prompt's samples as one group, with any method and engine."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl.models.utils import unwrap_model_for_generation

from esamp.engines import text
from esamp.engines.base import Completion, Content, Engine, Request
from esamp.engines.checks import check_active, refuse_token_logprobs
from esamp.engines.hf import HFEngine
from esamp.engines.hf.explore import explore
from esamp.errors import InputError, OptionError, UnsupportedError
from esamp.methods import registry
from esamp.methods.base import DecodeMethod
from esamp.options import Options
from esamp.rl.weights import push_weights
from esamp.sampling import Sampling

if TYPE_CHECKING:
    from esamp.engines.vllm.engine import VLLMEngine


class Rollouts:
    """A ``rollout_func`` of TRL: prompts in, samples with the log-probabilities of their sampling distribution out.

    Equal neighbouring prompts, which is how TRL repeats a prompt, are one request and one group. By default the
    trainer's own model generates, through `HFEngine`; with an engine of vLLM in the same process, the trained weights
    are copied into it before the first rollout after each update.
    """

    def __init__(
        self, method: str = "esamp", options: Options | None = None, engine: "VLLMEngine | None" = None
    ) -> None:
        """Choose how to generate.

        Args:
            method: name of a decoding method; "vanilla" is plain sampling.
            options: the method's options; None means its defaults.
            engine: loaded with the trainer's model, ``token_logprobs=True`` and ``in_process=True``; None generates
                with the trainer's own model.

        Raises:
            OptionError: no such method, or the options are another method's.
            UnsupportedError: tokens of this method have no probability of their own.
        """
        refuse_token_logprobs(method)
        self.request = Request("check", "check", method=method, options=options)
        self.request.own_options  # noqa: B018 - raises if they do not go together
        self.engine = engine
        self.tokens = 0
        """tokens generated so far, in training and in evaluation"""
        self.telemetry: Mapping[str, float] = {}
        """of the first group of the latest rollout"""
        self._calls = 0
        self._synced: int | None = None  # the trainer's step whose weights the engine has

    def check(self, model: Any, tokenizer: Any) -> None:
        """Refuse a model that cannot be explored, before anything is trained. Leaves no hook on it.

        Raises:
            UnsupportedError: the model or the tokenizer is of a kind that cannot be used.
            OptionError: the method's options do not fit the model, or the engine keeps no log-probabilities.
        """
        if not isinstance(tokenizer, PreTrainedTokenizerBase):
            raise UnsupportedError(f"exploring rollouts are of texts alone, not of a {type(tokenizer).__name__}")
        if self.engine is not None and not self.engine.keeps_token_logprobs:
            raise OptionError("the engine keeps no log-probabilities: load it with token_logprobs=True")
        if self.engine is None and issubclass(registry.get(self.request.method), DecodeMethod):
            options = self.request.own_options
            with explore(model, options, method=self.request.method, tokenizer=tokenizer, token_logprobs=True):
                pass

    def __call__(self, prompts: Sequence[Any], trainer: Any) -> dict[str, Any]:
        """Generate one sample for each of `prompts`.

        Args:
            prompts: this process's prompts, texts or chat messages, each repeated for each of its samples.
            trainer: a ``trl.GRPOTrainer``.

        Returns:
            Of each prompt ``prompt_ids``, ``completion_ids`` and ``logprobs``, the last under the distribution that
            the tokens were drawn from.

        Raises:
            PromptError: a prompt is too long for the model.
            UnsupportedError: the engine cannot run the method.
            InactiveMethodError: the method should have steered a group and steered none of its tokens.
        """
        train = trainer.model.training
        size = trainer.num_generations if train else trainer.num_generations_eval
        requests = [self._request(prompt, n, place, trainer) for place, (prompt, n) in enumerate(runs(prompts, size))]
        with self._engine(trainer, len(prompts)) as engine:
            completions = {id(done.request): done for done in engine.generate(requests)}
        self._calls += 1
        ordered = [completions[id(request)] for request in requests]
        for completion in ordered:
            check_active(completion)
        self.telemetry = ordered[0].telemetry
        return self._result(ordered, trainer.processing_class)

    def _request(self, prompt: Any, n: int, place: int, trainer: Any) -> Request:
        step, process = trainer.state.global_step, trainer.accelerator.process_index
        name = repr((trainer.args.seed, step, self._calls, process, place))
        sampling = Sampling(
            temperature=trainer.temperature,
            top_k=max(trainer.top_k or 0, 0),
            top_p=trainer.top_p,
            min_p=trainer.min_p or 0.0,
            repetition_penalty=trainer.repetition_penalty,
            max_tokens=trainer.max_completion_length,
        )
        seed = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=7).digest(), "little")
        return Request(
            f"prompt {place}", content(prompt), n, sampling, self.request.method, self.request.options, seed=seed
        )

    @contextmanager
    def _engine(self, trainer: Any, rows: int) -> Iterator[Engine]:
        """The engine with the trainer's present weights."""
        tokenizer, checkpointing = trainer.processing_class, trainer.args.gradient_checkpointing_kwargs
        unwrapped = unwrap_model_for_generation(
            trainer.model_wrapped, trainer.accelerator, gradient_checkpointing_kwargs=checkpointing
        )
        with unwrapped as model, evaluating(model), torch.no_grad():
            if self.engine is None:
                yield HFEngine(model, tokenizer, batch_rows=rows, token_logprobs=True)
            else:
                if self._synced != trainer.state.global_step:
                    push_weights(model, self.engine)
                    self._synced = trainer.state.global_step
                yield self.engine

    def _result(self, completions: Sequence[Completion], tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
        prompts, tokens, logprobs = [], [], []
        for completion in completions:
            prompt = text.encode(tokenizer, completion.request)
            for sample in completion.samples:
                prompts.append(list(prompt))
                tokens.append(list(sample.token_ids))
                logprobs.append(list(sample.logprobs or ()))
        self.tokens += sum(map(len, tokens))
        return {"prompt_ids": prompts, "completion_ids": tokens, "logprobs": logprobs}


def runs(prompts: Sequence[Any], size: int) -> Iterator[tuple[Any, int]]:
    """Each prompt of a sequence of repeated ones, with its number of samples, at most `size`."""
    for prompt, equal in groupby(prompts):
        count = len(list(equal))
        yield from ((prompt, min(size, count - start)) for start in range(0, count, size))


def content(prompt: Any) -> Content:
    """A prompt of a data set as a request's.

    Raises:
        InputError: it is neither a text nor messages of text.
    """
    if isinstance(prompt, str):
        return prompt
    if isinstance(prompt, list) and all(isinstance(turn, dict) and _is_text(turn) for turn in prompt):
        return tuple({"role": turn["role"], "content": turn["content"]} for turn in prompt)
    raise InputError("a prompt must be a text, or a list of messages with 'role' and a text as 'content'")


def _is_text(turn: Mapping[str, Any]) -> bool:
    return isinstance(turn.get("role"), str) and isinstance(turn.get("content"), str)


@contextmanager
def evaluating(model: PreTrainedModel) -> Iterator[None]:
    """A block in which the model is in evaluation mode, without dropout."""
    before = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(before)
