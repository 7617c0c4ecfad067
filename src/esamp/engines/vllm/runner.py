"""vLLM's V1 model runner, exploring. On a CPU there is no other; on a GPU it is the older of two."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from vllm.config import VllmConfig
from vllm.v1.worker.gpu_model_runner import GPUModelRunner

from esamp.engines.vllm.exploration import project
from esamp.engines.vllm.installation import NO_ADAPTER, RAW, Installation
from esamp.engines.vllm.sampler import ExploringSampler


class ExploringRunner(GPUModelRunner):
    """Overrides the moments between hidden states and tokens; every other line of a step is vLLM's."""

    def __init__(self, vllm_config: VllmConfig, device: torch.device) -> None:
        """Take vLLM's arguments."""
        super().__init__(vllm_config, device)
        self.esamp = Installation(vllm_config, device)
        self.sampler = ExploringSampler(
            logprobs_mode=self.model_config.logprobs_mode, use_fp64_gumbel=self.model_config.use_fp64_gumbel
        )
        self._logit_places: Tensor | None = None
        self._sampled: Tensor | None = None

    def explore(self) -> None:
        """Read the loaded model's head and install the taps, before anything is compiled."""
        if self.lora_config is not None:
            self._set_active_loras(NO_ADAPTER, NO_ADAPTER, set())  # until then its indices are uninitialised memory
        self.esamp.attach(self.get_model())
        self.use_aux_hidden_state_outputs = self.esamp.taps.in_output

    def _update_states(self, scheduler_output: Any) -> Callable[..., Any] | None:
        """Requests that ended leave their groups, new ones join."""
        self.esamp.groups.finish(scheduler_output.finished_req_ids)
        for new in scheduler_output.scheduled_new_reqs:
            self.esamp.add(new.req_id, new.sampling_params)
        return super()._update_states(scheduler_output)

    def _prepare_inputs(self, scheduler_output: Any, num_scheduled_tokens: NDArray[np.int32]) -> Any:
        """Note which rows of the coming pass get a token, those whose newest token is in it, and how many they have."""
        prepared = super()._prepare_inputs(scheduler_output, num_scheduled_tokens)
        batch, rows = self.input_batch, self.input_batch.num_reqs
        after = batch.num_computed_tokens_cpu[:rows] + num_scheduled_tokens
        sampling, position = after >= batch.num_tokens_no_spec[:rows], after - batch.num_prompt_tokens[:rows]
        self._logit_places = prepared[0]
        one_each = bool((num_scheduled_tokens == 1).all())
        self.esamp.exploration.begin(batch.req_ids, sampling, position, one_each=one_each)
        return prepared

    def _model_forward(self, input_ids: Tensor | None = None, *args: Any, **kwargs: Any) -> Any:
        """Steer between the last layer and the head."""
        output = super()._model_forward(input_ids, *args, **kwargs)
        if self._logit_places is not None and self.esamp.exploration.active:
            hidden, inner = output if self.esamp.taps.in_output else (output, None)
            self.esamp.exploration.steer(
                hidden,
                self._logit_places,
                self.esamp.taps.read(inner, hidden),
                input_ids if self.use_async_scheduling else None,
                keep_reference=self._wants_own_logprobs(),
            )
        return output

    def sample_tokens(self, grammar_output: Any) -> Any:
        """Combine before the grammar's mask, sample, learn."""
        exploration = self.esamp.exploration
        if self.execute_model_state is None or not exploration.active:
            return super().sample_tokens(grammar_output)
        logits = self.execute_model_state.logits
        states, compute = self.execute_model_state.sample_hidden_states, self.model.compute_logits
        with torch.inference_mode():
            changes = exploration.combine(
                logits, lambda wanted: project(compute, states, wanted, by_place=self.lora_config is not None)
            )
        self.sampler.change(changes)
        output = super().sample_tokens(grammar_output)
        if self._sampled is not None:
            with torch.inference_mode():
                exploration.learn(self._sampled[:, 0])
        self._logit_places = self._sampled = None
        return output

    def _sample(self, *args: Any, **kwargs: Any) -> Any:
        """Note the tokens."""
        output = super()._sample(*args, **kwargs)
        self._sampled = output.sampled_token_ids
        return output

    def _wants_own_logprobs(self) -> bool:
        """Whether any request is to be told the log-probabilities of the model's own distribution."""
        batch = self.input_batch
        return self.model_config.logprobs_mode in RAW and bool(batch.num_logprobs or batch.logprob_token_ids)
