"""`GenerateCall`: the driver of ``run.generate(...)``, which takes part in the decoding loop and guesses nothing."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor

from esamp.decoding.step import Combined
from esamp.engines.hf.batch import UNLIMITED
from esamp.engines.hf.exploration import Exploration
from esamp.engines.hf.processors import Finish
from esamp.engines.hf.prompt import Prompt, find_cache, holds_tokens, token_list
from esamp.errors import OptionError, UnsupportedError


class GenerateCall:
    """One ``run.generate(...)``.

    The loop's forward pass is the first one after a sampled token, and so are the passes of the prompt's pieces;
    whatever else calls the model, such as classifier-free guidance or a stopping criterion, does so after that and is
    left alone.
    """

    def __init__(self, exploration: Exploration, *, seeds: int | Sequence[int], samples: int) -> None:
        """`seeds` and `samples` as in `Exploration.start`."""
        self._exploration, self._seeds, self._samples = exploration, seeds, samples
        self._pieces = 1  # forward passes that the prompt takes
        self._sampled = 0  # tokens of each row so far
        self._reading = True  # whether the next forward pass is the loop's own
        self._newest: Tensor | None = None
        self._combined: Combined | None = None

    # ---- what the loop tells

    def on_prompt(self, ids: Tensor, inputs: Mapping[str, Any], config: GenerationConfig) -> None:
        """The loop starts with token ids `[B, L]`, the model's other inputs and the prepared configuration."""
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
            Prompt.read([tokens], inputs, cached=holds_tokens(find_cache(inputs))),
            pad=None if pad in stops else pad,
            stops=stops,
            seeds=self._seeds,
            samples=self._samples,
            limit=UNLIMITED if config.max_length is None else config.max_length - ids.shape[1],
            temperature=(config.temperature or 1.0) if config.do_sample else 0.0,
        )
        mask = inputs.get("attention_mask")
        self._exploration.feed(ids, mask if isinstance(mask, Tensor) else None)
        if config.prefill_chunk_size is not None:
            self._pieces = -(-ids.shape[1] // config.prefill_chunk_size)

    def on_sampled(self, tokens: Tensor, finished: Tensor) -> None:
        """Each row has sampled one of `tokens` `[B]`; the rows in `finished` `[B]` bool end with it."""
        exploration = self._exploration
        batch = exploration.require_batch(tokens.shape[0])
        exploration.learn(tokens.to(batch.live.device), batch.live)
        batch.live = batch.live > finished.to(batch.live.device)  # True > False: live and not finished
        batch.count()
        self._newest, self._reading = tokens, True
        self._sampled += 1

    def last_processors(self, config: GenerationConfig) -> list[LogitsProcessor]:
        """To run behind all others."""
        temperature = config.temperature if config.do_sample else 1.0
        return [Finish(self._take_combined, temperature or 1.0)]

    # ---- what the model's hooks tell (`Driver`)

    def on_forward(self, inputs: Mapping[str, Any]) -> bool:
        """True for the loop's own decode steps, and for the end of its prefill if the method acts on first tokens."""
        if not self._reading:
            return False
        if self._sampled:
            self._reading = False
            self._exploration.steps += 1
            if self._newest is not None:
                self._exploration.feed(self._newest.unsqueeze(1))
            return True
        self._pieces -= 1
        self._reading = self._pieces > 0
        return self._exploration.method.first_token and not self._reading

    def on_combined(self, combined: Combined) -> None:
        """Keep what the last logits processors need."""
        self._combined = combined

    def on_end(self) -> None:
        """The loop itself tells when a step is over."""

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
