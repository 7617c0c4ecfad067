"""vLLM's V1 model runner, extended to explore: the usual one on a CPU, and the older of two on a GPU."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import override
from vllm.config import VllmConfig
from vllm.v1.worker.gpu_model_runner import GPUModelRunner

from esamp.engines.vllm.workers.attachment import NO_ADAPTER, RAW_MODES, Attachment
from esamp.engines.vllm.workers.changes import project
from esamp.engines.vllm.workers.sampler_v1 import ExploringSampler


class ExploringRunner(GPUModelRunner):
    """Acts between hidden states and tokens; everything else in a step is vLLM's.

    vLLM has no public interface to this moment, so private methods are overridden: ``_update_states`` (requests enter
    and leave the batch), ``_prepare_inputs`` (which rows get a token), ``_model_forward`` (the final hidden states)
    and ``_sample`` (the sampled tokens). ``_set_active_loras`` is called once, before the LM head is probed.
    """

    def __init__(self, vllm_config: VllmConfig, device: torch.device) -> None:
        super().__init__(vllm_config, device)
        self.esamp = Attachment(vllm_config, device)
        self.sampler = ExploringSampler(
            logprobs_mode=self.model_config.logprobs_mode, use_fp64_gumbel=self.model_config.use_fp64_gumbel
        )
        self._logits_indices: Tensor | None = None
        self._sampled: Tensor | None = None

    def attach_esamp(self) -> None:
        """Prepare the loaded model for exploring, before anything is compiled."""
        if self.lora_config is not None:
            self._set_active_loras(NO_ADAPTER, NO_ADAPTER, set())  # before this call its indices are uninitialised
        self.esamp.attach(self.get_model())
        self.use_aux_hidden_state_outputs = self.esamp.taps.in_output

    @override
    def _update_states(self, scheduler_output: Any) -> Callable[..., Any] | None:
        self.esamp.groups.finish(scheduler_output.finished_req_ids)
        for new in scheduler_output.scheduled_new_reqs:
            self.esamp.add(new.req_id, new.sampling_params)
        return super()._update_states(scheduler_output)

    @override
    def _prepare_inputs(self, scheduler_output: Any, num_scheduled_tokens: NDArray[np.int32]) -> Any:
        prepared = super()._prepare_inputs(scheduler_output, num_scheduled_tokens)
        batch, rows = self.input_batch, self.input_batch.num_reqs
        after = batch.num_computed_tokens_cpu[:rows] + num_scheduled_tokens
        # A row gets a token if its newest token is in this pass.
        sampling, position = after >= batch.num_tokens_no_spec[:rows], after - batch.num_prompt_tokens[:rows]
        self._logits_indices = prepared[0]
        one_token_each = bool((num_scheduled_tokens == 1).all())
        self.esamp.exploration.begin(batch.req_ids, sampling, position, one_token_each=one_token_each)
        return prepared

    @override
    def _model_forward(self, input_ids: Tensor | None = None, *args: Any, **kwargs: Any) -> Any:
        """Run the model's layers, then steer before the LM head."""
        output = super()._model_forward(input_ids, *args, **kwargs)
        if self._logits_indices is not None and self.esamp.exploration.active:
            hidden_states, returned = output if self.esamp.taps.in_output else (output, None)
            hidden_states = self.esamp.exploration.steer(
                hidden_states,
                self._logits_indices,
                self.esamp.taps.read(returned, hidden_states),
                input_ids if self.use_async_scheduling else None,
                keep_reference=self._needs_own_logits(),
            )
            return (hidden_states, returned) if self.esamp.taps.in_output else hidden_states
        return output

    @override
    def sample_tokens(self, grammar_output: Any) -> Any:
        """Combine before the grammar's mask, sample, then learn."""
        exploration = self.esamp.exploration
        if self.execute_model_state is None or not exploration.active:
            return super().sample_tokens(grammar_output)
        logits = self.execute_model_state.logits
        states, compute_logits = self.execute_model_state.sample_hidden_states, self.model.compute_logits
        with torch.inference_mode():
            changes = exploration.combine(
                logits, lambda extra: project(compute_logits, states, extra, in_place=self.lora_config is not None)
            )
        self.sampler.change(changes, restricted=grammar_output is not None)
        output = super().sample_tokens(grammar_output)
        if self._sampled is not None:
            with torch.inference_mode():
                exploration.learn(self._sampled[:, 0])
        self._logits_indices = self._sampled = None
        return output

    @override
    def _sample(self, *args: Any, **kwargs: Any) -> Any:
        output = super()._sample(*args, **kwargs)
        self._sampled = output.sampled_token_ids
        return output

    def _needs_own_logits(self) -> bool:
        """Whether any request asks for log-probabilities of the model's own distribution."""
        batch = self.input_batch
        return self.model_config.logprobs_mode in RAW_MODES and bool(batch.num_logprobs or batch.logprob_token_ids)
