"""`ReferencePasses`: log-probabilities of finished samples under the model alone, within the running batch."""

import itertools
from typing import TYPE_CHECKING

from esamp.engines.vllm.pending_request import PendingRequest
from esamp.engines.vllm.score import token_table

if TYPE_CHECKING:
    from vllm import LLMEngine, RequestOutput


class ReferencePasses:
    """Sends each finished sample through the model once more, as a prompt, whose log-probabilities vLLM reports.

    Those of prompts are always of the model's own logits, whatever ``logprobs_mode`` is. A pass generates one token,
    which is discarded, as vLLM needs at least one.
    """

    def __init__(self, llm: "LLMEngine") -> None:
        """Use an engine."""
        self._llm = llm
        self._running: dict[str, tuple[PendingRequest, int]] = {}
        self._numbers = itertools.count()

    def submit(self, pending: PendingRequest, index: int) -> None:
        """Start the pass of a finished sample."""
        from vllm import SamplingParams

        name = f"reference {next(self._numbers)}"
        params = SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=0, detokenize=False)
        tokens = [*pending.prompt, *pending.tokens[index]]
        self._llm.add_request(name, {"prompt_token_ids": tokens}, params)
        self._running[name] = pending, index

    def receive(self, output: "RequestOutput") -> bool:
        """Give the result of a pass to its request. Returns whether the output is that of a pass."""
        if output.request_id not in self._running:
            return False
        pending, index = self._running.pop(output.request_id)
        pending.reference[index] = token_table(output, pending.prompt, pending.tokens[index])
        return True

    def drop(self, pending: PendingRequest) -> list[str]:
        """Forget the passes of a request. Returns their names, which must be aborted."""
        names = [name for name, (owner, _) in self._running.items() if owner is pending]
        for name in names:
            del self._running[name]
        return names
