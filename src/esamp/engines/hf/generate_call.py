"""`GenerateCall`: the driver of ``run.generate(...)``, which the decoding loop itself reports each step to."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor
from typing_extensions import override

from esamp.decoding.step import Combined
from esamp.engines.hf.exploration import UNLIMITED, Driver, HFExploration
from esamp.engines.hf.processors import AfterFilters
from esamp.engines.hf.prompt_batch import PromptBatch, find_cache, holds_tokens, token_list
from esamp.errors import OptionError, UnsupportedError


class GenerateCall(Driver):
    """One ``run.generate(...)``: `on_prompt` and `on_sampled` are callbacks of `generate`, the others of the hooks.

    The loop's own forward pass is the first one after a sampled token. At prefill it is the first pass for each piece
    of the prompt. Any other use of the model, such as classifier-free guidance or a stopping criterion that calls it,
    comes after that pass and is left alone.
    """

    def __init__(self, exploration: HFExploration, *, seeds: int | Sequence[int], samples: int) -> None:
        """`seeds` and `samples` as in `HFExploration.start`."""
        self._exploration, self._seeds, self._samples = exploration, seeds, samples
        self._pieces = 1  # forward passes left in prefill
        self._steps = 0  # tokens sampled for each row
        self._expects_pass = True  # whether the next forward pass is the loop's own
        self._newest: Tensor | None = None  # the tokens sampled last
        self._combined: Combined | None = None

    # ---- callbacks of the decoding loop

    def on_prompt(self, ids: Tensor, inputs: Mapping[str, Any], config: GenerationConfig) -> None:
        """Start: the loop has token ids `[B, L]`, the model's other inputs and the prepared configuration.

        Raises:
            UnsupportedError: the configuration compiles the model without graph breaks.
            OptionError: samples_per_prompt would split the samples of a prompt.
        """
        if config.compile_config is not None and config.compile_config.fullgraph:
            raise UnsupportedError(
                "compile_config.fullgraph = True leaves no place for the hooks of explore(): set fullgraph=False"
            )
        embeddings = inputs.get("inputs_embeds")
        tokens = embeddings if isinstance(embeddings, Tensor) else ids
        stops = token_list(config.eos_token_id)
        pad = config.pad_token_id
        self._check_block(config.num_return_sequences or 1)
        self._exploration.start(
            PromptBatch.read([tokens], inputs, cached=holds_tokens(find_cache(inputs))),
            pad=None if pad in stops else pad,
            stops=stops,
            seeds=self._seeds,
            samples=self._samples,
            limit=UNLIMITED if config.max_length is None else config.max_length - ids.shape[1],
            temperature=(config.temperature or 1.0) if config.do_sample else 0.0,
        )
        mask = inputs.get("attention_mask")
        self._exploration.set_input_tokens(ids, mask if isinstance(mask, Tensor) else None)
        if config.prefill_chunk_size is not None:
            self._pieces = -(-ids.shape[1] // config.prefill_chunk_size)

    def on_sampled(self, tokens: Tensor, finished: Tensor) -> None:
        """Finish a step: the rows sampled `tokens` `[B]`, which end the rows in `finished` `[B]` bool."""
        exploration = self._exploration
        batch = exploration.require_batch(tokens.shape[0])
        exploration.learn(tokens.to(batch.live.device), batch.live)
        batch.live = batch.live > finished.to(batch.live.device)  # True > False: live and not finished
        batch.advance()
        self._newest, self._expects_pass = tokens, True
        self._steps += 1

    def last_processors(self, config: GenerationConfig) -> list[LogitsProcessor]:
        """The logits processors to run after all others."""
        temperature = config.temperature if config.do_sample else 1.0
        return [AfterFilters(self._take_combined, temperature or 1.0)]

    # ---- callbacks of the model's hooks

    @override
    def on_forward(self, inputs: Mapping[str, Any]) -> bool:
        if not self._expects_pass:
            return False
        if self._steps:
            self._expects_pass = False
            self._exploration.steps += 1
            if self._newest is not None:
                self._exploration.set_input_tokens(self._newest.unsqueeze(1))
            return True
        self._pieces -= 1
        self._expects_pass = self._pieces > 0
        return self._exploration.method.first_token and not self._expects_pass

    @override
    def on_combined(self, combined: Combined) -> None:
        self._combined = combined  # for `AfterFilters`

    @override
    def on_end(self) -> None: ...

    def _check_block(self, returned: int) -> None:
        block = self._exploration.groups.block
        if block is not None and block < returned:
            raise OptionError(
                f"samples_per_prompt = {block} would split the {returned} samples of each prompt "
                f"(num_return_sequences = {returned}) into groups that share nothing: leave samples_per_prompt out, "
                f"or set it to {returned}"
            )

    def _take_combined(self) -> Combined | None:
        combined, self._combined = self._combined, None
        return combined
