"""vLLM's Model Runner V2, extended to explore: the default on a GPU in newer releases.

vLLM 0.26 does not run V2 with custom logits processors. `esamp.engines.vllm.admission` is one, so there V1 is used.
"""

import inspect
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor
from typing_extensions import override
from vllm.config import VllmConfig
from vllm.v1.worker.gpu.model_runner import GPUModelRunner
from vllm.v1.worker.gpu.sample.gumbel import gumbel_sample
from vllm.v1.worker.gpu.sample.sampler import Sampler
from vllm.v1.worker.gpu.sample.states import NO_LOGPROBS

from esamp.engines.vllm.workers.attachment import NO_ADAPTER, RAW_MODES, Attachment
from esamp.engines.vllm.workers.changes import Change, apply_after_filters, apply_changes, project
from esamp.errors import UnsupportedError

NOT_DRAFTING = {name: False for name in inspect.signature(gumbel_sample).parameters if name == "is_drafting"}
"""``is_drafting``, an argument that ``gumbel_sample`` has in newer releases only."""


class ExploringSamplerV2(Sampler):
    """Draws from the methods' logits, and reports log-probabilities of the model's own.

    A step without changes is vLLM's own.
    """

    _changes: Sequence[Change] = ()
    _restricted = False
    _batch: Any = None

    @classmethod
    def around(cls, sampler: Sampler) -> Self:
        """Create one with the state of vLLM's sampler.

        Raises:
            UnsupportedError: vLLM uses a special sampler.
        """
        if type(sampler) is not Sampler:
            raise UnsupportedError(f"esamp does not work with vLLM's {type(sampler).__name__}: leave its option out")
        exploring = cls.__new__(cls)
        exploring.__dict__.update(vars(sampler))
        return exploring

    def change(self, changes: Sequence[Change], *, restricted: bool) -> None:
        """Set the changes of the next call, and whether a grammar has ruled out tokens in its logits."""
        self._changes, self._restricted = changes, restricted

    @override
    def __call__(self, logits: Tensor, input_batch: Any) -> Any:
        self._batch = input_batch
        try:
            return super().__call__(logits, input_batch)
        finally:
            self._changes, self._batch = (), None

    @override
    def sample(self, logits: Tensor, rows: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Replace rows of the logits, of which vLLM has copied its own before, and sample.

        The logits keep their dtype, so that other rows of the batch are bitwise the same as without changes.
        """
        if not self._changes:
            return super().sample(logits, rows, *args, **kwargs)
        logits = apply_changes(logits, self._changes, restricted=self._restricted)
        if not any(change.acts_after_filters for change in self._changes):
            return super().sample(logits, rows, *args, **kwargs)
        kwargs.pop("return_logprobs", None)
        states = self.sampling_states
        temperature = states.temperature.gpu.index_select(0, rows)
        filtered = self.apply_sampling_params(logits, rows, *args, **kwargs).float()
        final = apply_after_filters(filtered, self._changes, temperature)
        tokens = gumbel_sample(
            final,
            rows,
            states.temperature.gpu,
            states.seeds.gpu,
            self._batch.positions[self._batch.logits_indices],
            apply_temperature=False,
            use_fp64=self.use_fp64_gumbel,
            **NOT_DRAFTING,
        )
        return tokens, final

    def reports_logprobs(self, slots: Any) -> bool:
        """Whether any request in these slots of vLLM's batch asks for log-probabilities."""
        return bool(
            self.sampling_states.max_num_logprobs(slots) != NO_LOGPROBS
            or self.logprob_token_ids_state.max_num_token_ids(slots) > 0
        )


class ExploringRunnerV2(GPUModelRunner):
    """Acts between hidden states and tokens; everything else in a step is vLLM's.

    The private method ``_set_active_loras`` of vLLM is called once, before the LM head is probed.
    """

    sampler: Any

    def __init__(self, vllm_config: VllmConfig, device: torch.device) -> None:
        super().__init__(vllm_config, device)
        self.esamp = Attachment(vllm_config, device)
        self._aux_hidden_states: Sequence[Tensor] | None = None
        self._sampled: Tensor | None = None

    def attach_esamp(self) -> None:
        """Prepare the loaded model for exploring, before anything is compiled."""
        if self.lora_config is not None:
            self._set_active_loras(NO_ADAPTER, NO_ADAPTER, set())  # before this call its indices are uninitialised
        self.esamp.attach(self.get_model())
        self.use_aux_hidden_state_outputs = self.esamp.taps.in_output
        self.sampler = ExploringSamplerV2.around(self.sampler)

    @override
    def finish_requests(self, scheduler_output: Any) -> None:
        # vLLM removes preempted requests here as well, but they stay in their groups.
        self.esamp.groups.finish(scheduler_output.finished_req_ids)
        super().finish_requests(scheduler_output)

    @override
    def add_requests(self, scheduler_output: Any) -> None:
        for new in scheduler_output.scheduled_new_reqs:
            self.esamp.add(new.req_id, new.sampling_params)
        super().add_requests(scheduler_output)

    @override
    def sample_tokens(self, grammar_output: Any) -> Any:
        """Sample, then learn: the device learns while the host schedules the next step."""
        state = self.execute_model_state
        self._aux_hidden_states = None if state is None else state.aux_hidden_states
        output = super().sample_tokens(grammar_output)
        if self._sampled is not None:
            with torch.inference_mode():
                self.esamp.exploration.learn(self._sampled[:, 0])
        self._sampled = self._aux_hidden_states = None
        return output

    @override
    @torch.inference_mode()
    def sample(self, hidden_states: Tensor, input_batch: Any, grammar_output: Any) -> Any:
        """Steer, then let vLLM project and sample.

        Buffers that are read here belong to this step: vLLM overwrites them, and replays a graph, only in the next.
        """
        exploration, slots = self.esamp.exploration, input_batch.idx_mapping_np
        after = input_batch.seq_lens_cpu_upper_bound.numpy()[: input_batch.num_reqs]  # exact, as there are no drafts
        position = after - self.req_states.prompt_len.np[slots]
        exploration.begin(input_batch.req_ids, after >= input_batch.prefill_len_np, position)
        if not exploration.active:
            return super().sample(hidden_states, input_batch, grammar_output)
        indices = input_batch.logits_indices
        own_logprobs = self.model_config.logprobs_mode in RAW_MODES and self.sampler.reports_logprobs(slots)
        hidden_states = exploration.steer(
            hidden_states,
            indices,
            self.esamp.taps.read(self._aux_hidden_states, hidden_states),
            input_batch.input_ids if self.scheduler_config.async_scheduling else None,
            keep_reference=own_logprobs,
            sees_logits=False,
        )
        compute_logits, in_place = self.get_model().compute_logits, self.lora_config is not None
        changes = exploration.combine(
            None, lambda extra: project(compute_logits, hidden_states[indices], extra, in_place=in_place)
        )
        self.sampler.change(changes, restricted=grammar_output is not None)
        output = super().sample(hidden_states, input_batch, grammar_output)
        self._sampled = output[0].sampled_token_ids
        return output
