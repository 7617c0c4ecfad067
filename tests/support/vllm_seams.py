"""The parts of vLLM that our classes override, call or read, and a check of vLLM's sources for them.

Sources are parsed, not imported, so any release can be checked, whatever is installed.

    python tests/support/vllm_seams.py FOLDER     # the folder `vllm` of a release
"""

import ast
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

V1 = "v1.worker.gpu_model_runner:GPUModelRunner"
V2 = "v1.worker.gpu.model_runner:GPUModelRunner"
SAMPLER_V1 = "v1.sample.sampler:Sampler"
SAMPLER_V2 = "v1.worker.gpu.sample.sampler:Sampler"
WORKER = "v1.worker.gpu_worker:Worker"
SCHEDULER = "v1.core.sched.scheduler:Scheduler"

SEAMS: Mapping[str, Mapping[str, str | None]] = {
    # Methods with their leading parameters, and after "*" those that may stand anywhere; None: only the name.
    V1: dict(
        __init__="vllm_config device",
        get_model="",
        _update_states="scheduler_output",
        _prepare_inputs="scheduler_output num_scheduled_tokens",
        _model_forward="input_ids",
        sample_tokens="grammar_output",
        _sample="logits spec_decode_metadata",
        reload_weights="weights_iterator",
        model=None,
        sampler=None,
        input_batch=None,
        execute_model_state=None,
        use_async_scheduling=None,
        use_aux_hidden_state_outputs=None,
        model_config=None,
        lora_config=None,
    ),
    "v1.worker.lora_model_runner_mixin:LoRAModelRunnerMixin": dict(
        _set_active_loras="prompt_lora_mapping token_lora_mapping lora_requests"
    ),
    "v1.worker.gpu_model_runner:ExecuteModelState": dict(logits=None, sample_hidden_states=None),
    "v1.worker.gpu_input_batch:InputBatch": dict(
        req_ids=None,
        num_reqs=None,
        num_computed_tokens_cpu=None,
        num_prompt_tokens=None,
        num_tokens_no_spec=None,
        num_logprobs=None,
        logprob_token_ids=None,
        generators=None,
    ),
    "v1.worker.cpu_model_runner:CPUModelRunner": dict(
        __init__="vllm_config device",
        _bookkeeping_sync=None,
        discard_request_mask=None,
    ),
    SAMPLER_V1: dict(
        __init__="* logprobs_mode use_fp64_gumbel",
        forward="logits sampling_metadata",
        apply_logits_processors="logits sampling_metadata",
        sample="logits sampling_metadata",
        topk_topp_sampler=None,
    ),
    "v1.sample.metadata:SamplingMetadata": dict(
        temperature=None,
        all_greedy=None,
        all_random=None,
        top_k=None,
        top_p=None,
        generators=None,
        logitsprocs=None,
    ),
    "v1.outputs:SamplerOutput": dict(sampled_token_ids=None),
    V2: dict(
        __init__="vllm_config device",
        get_model="",
        finish_requests="scheduler_output",
        add_requests="scheduler_output",
        sample="hidden_states input_batch grammar_output",
        sample_tokens="grammar_output",
        sampler=None,
        req_states=None,
        execute_model_state=None,
        use_aux_hidden_state_outputs=None,
        model_config=None,
        scheduler_config=None,
        lora_config=None,
    ),
    "v1.worker.gpu.model_runner:ExecuteModelState": dict(aux_hidden_states=None),
    "v1.worker.gpu.input_batch:InputBatch": dict(
        req_ids=None,
        num_reqs=None,
        idx_mapping_np=None,
        expanded_idx_mapping=None,
        seq_lens_cpu_upper_bound=None,
        prefill_len_np=None,
        logits_indices=None,
        input_ids=None,
        positions=None,
    ),
    "v1.worker.gpu.states:RequestState": dict(prompt_len=None),
    SAMPLER_V2: dict(
        __call__="logits input_batch",
        sample="logits expanded_idx_mapping * pos return_logprobs",
        apply_sampling_params="logits expanded_idx_mapping * pos skip_top_k_top_p",
        sampling_states=None,
        logprob_token_ids_state=None,
        use_fp64_gumbel=None,
    ),
    "v1.worker.gpu.sample.states:SamplingStates": dict(temperature=None, seeds=None, max_num_logprobs="idx_mapping_np"),
    "v1.worker.gpu.sample.states": dict(NO_LOGPROBS=None),
    "v1.worker.gpu.sample.logprob:LogprobTokenIdsState": dict(max_num_token_ids="idx_mapping_np"),
    "v1.worker.gpu.sample.gumbel": dict(
        gumbel_sample="logits expanded_idx_mapping temperature seed pos apply_temperature * use_fp64"
    ),
    "v1.worker.gpu.sample.output:SamplerOutput": dict(sampled_token_ids=None),
    "v1.worker.cpu.model_runner:CPUModelRunner": dict(__init__="vllm_config device", warming_up_model=""),
    WORKER: dict(
        __init__="vllm_config",
        init_device="",
        load_model="",
        compile_or_warm_up_model="",
        model_runner=None,
        use_v2_model_runner=None,
        device=None,
    ),
    "v1.worker.cpu_worker:CPUWorker": dict(__init__="vllm_config", init_device="", use_v2_model_runner=None),
    SCHEDULER: dict(
        schedule="",
        _enqueue_waiting_request="request",
        _free_request="request",
        get_request_counts="",
        get_num_unfinished_requests="",
        has_finished_requests="",
        vllm_config=None,
        finished_req_ids_dict=None,
        finished_req_ids=None,
        waiting=None,
        requests=None,
        pause_state=None,
    ),
    "v1.core.sched.async_scheduler:AsyncScheduler": dict(schedule=""),
    "v1.core.sched.interface:PauseState": dict(UNPAUSED=None),
    "v1.core.sched.request_queue:RequestQueue": dict(prepend_request="request"),
    "v1.request:Request": dict(request_id=None, sampling_params=None),
    "v1.core.sched.output:SchedulerOutput": dict(finished_req_ids=None, scheduled_new_reqs=None),
    "v1.core.sched.output:NewRequestData": dict(req_id=None, sampling_params=None),
    "sampling_params:SamplingParams": dict(
        extra_args=None, n=None, stop_token_ids=None, ignore_eos=None, all_stop_token_ids=""
    ),
    "config.vllm:VllmConfig": dict(
        additional_config=None,
        model_config=None,
        scheduler_config=None,
        parallel_config=None,
        speculative_config=None,
    ),
    "config.model:ModelConfig": dict(
        get_hidden_size="", hf_text_config=None, dtype=None, logprobs_mode=None, use_fp64_gumbel=None, runner_type=None
    ),
    "config.parallel:ParallelConfig": dict(
        pipeline_parallel_size=None, prefill_context_parallel_size=None, enable_dbo=None, worker_cls=None
    ),
    "config.scheduler:SchedulerConfig": dict(max_num_batched_tokens=None, async_scheduling=None, scheduler_cls=None),
    "v1.sample.logits_processor:LogitsProcessor": dict(
        validate_params="sampling_params", is_argmax_invariant="", apply="logits", update_state="batch_update"
    ),
    "v1.sample.ops.topk_topp_sampler": dict(apply_top_k_top_p="logits k p"),
    "model_executor.models.interfaces": dict(supports_eagle3="model"),
    "model_executor.models.interfaces:SupportsEagle3": dict(set_aux_hidden_state_layers="layers"),
    "model_executor.layers.vocab_parallel_embedding:VocabParallelEmbedding": dict(quant_method=None),
    "model_executor.layers.vocab_parallel_embedding": dict(UnquantizedEmbeddingMethod=None),
    "distributed.parallel_state": dict(get_tensor_model_parallel_rank=""),
    "distributed.communication_op": dict(tensor_model_parallel_all_reduce="input_"),
}

CALLS: Mapping[str, Sequence[str]] = {
    # Which methods must call which, so that our overrides are reached. Of names between bars one is enough.
    f"{V1}.execute_model": ("_update_states", "_prepare_inputs", "_model_forward", "compute_logits"),
    f"{V1}.sample_tokens": ("_sample",),
    f"{V1}._sample": ("sampler",),
    f"{SAMPLER_V1}.forward": ("apply_logits_processors", "sample"),
    f"{V2}.execute_model": ("finish_requests", "add_requests"),
    f"{V2}.sample_tokens": ("sample", "compute_prompt_logprobs"),
    f"{V2}.sample": ("compute_logits", "sampler"),
    f"{SAMPLER_V2}.__call__": ("sample",),
    f"{SAMPLER_V2}.sample": ("apply_sampling_params",),
    f"{WORKER}.init_device|_init_workspace_and_model_runner": ("_make_model_runner|GPUModelRunnerV2",),
    f"{WORKER}.compile_or_warm_up_model|_compile_or_warm_up_model": ("warmup_kernels",),
    "v1.worker.cpu_worker:CPUWorker.init_device": ("CPUModelRunnerV2", "CPUModelRunner"),
    f"{SCHEDULER}.add_request": ("_enqueue_waiting_request",),
}


@dataclass(frozen=True)
class Release:
    """The sources of one release of vLLM."""

    folder: Path

    def problems(self) -> list[str]:
        """A message for each part that is missing or has changed."""
        return [*self._moved(), *self._uncalled()]

    def _moved(self) -> Iterator[str]:
        for place, members in SEAMS.items():
            home = self._home(place)
            if not home:
                yield f"vllm.{place} is gone"
            for name, wanted in members.items() if home else ():
                if not any(name in names(node) for node in home):
                    yield f"vllm.{place} has no {name}"
                definitions = [found for node in home if (found := function(node, name)) is not None]
                if definitions and wanted is not None:
                    yield from mismatch(f"vllm.{place}.{name}", wanted, parameters(definitions[0]))

    def _uncalled(self) -> Iterator[str]:
        for place, wanted in CALLS.items():
            path, _, methods = place.rpartition(".")
            home = self._home(path)
            bodies = [
                body for name in methods.split("|") for node in home if (body := function(node, name)) is not None
            ]
            called = {name for body in bodies for name in calls(body)}
            for each in wanted:
                if called.isdisjoint(each.split("|")):
                    yield f"vllm.{place} does not call {each}"

    def _home(self, place: str) -> list[ast.AST]:
        """A module, or a class with its bases."""
        module, _, name = place.partition(":")
        tree = self._tree(module)
        if tree is None:
            return []
        return self._class(module, name) if name else [tree]

    def _class(self, module: str, name: str) -> list[ast.AST]:
        tree = self._tree(module)
        if tree is None:
            return []
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and node.name == name:
                bases = [base.id for base in node.bases if isinstance(base, ast.Name)]
                return [node, *(each for base in bases for each in self._class(module, base))]
        source = self._origin(tree, module, name)
        return [] if source is None else self._class(*source)

    def _origin(self, tree: ast.Module, module: str, name: str) -> tuple[str, str] | None:
        """The module and name that a module imports a name from."""
        package = self._file(module).name == "__init__.py"
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and any((each.asname or each.name) == name for each in node.names):
                original = next(each.name for each in node.names if (each.asname or each.name) == name)
                if node.level:
                    parts = module.split(".")
                    above = parts[: len(parts) - node.level + package]
                    return ".".join([*above, *((node.module or "").split(".") if node.module else [])]), original
                if (node.module or "").startswith("vllm."):
                    return (node.module or "").removeprefix("vllm."), original
        return None

    def _file(self, module: str) -> Path:
        path = self.folder.joinpath(*module.split("."))
        return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")

    def _tree(self, module: str) -> ast.Module | None:
        path = self._file(module)
        return parsed(path) if path.is_file() else None


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def body(node: ast.AST) -> list[ast.stmt]:
    """Statements of a class or module, those under a condition too."""
    assert isinstance(node, ast.ClassDef | ast.Module)
    result: list[ast.stmt] = []
    for each in node.body:
        result += [each, *each.body, *each.orelse] if isinstance(each, ast.If) else [each]
    return result


def function(node: ast.AST, name: str) -> ast.FunctionDef | None:
    found = [each for each in body(node) if isinstance(each, ast.FunctionDef) and each.name == name]
    return found[-1] if found else None


def names(node: ast.AST) -> set[str]:
    """What a module or class defines or imports, and what instances get."""
    result: set[str] = set()
    for each in body(node):
        if isinstance(each, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            result.add(each.name)
        if isinstance(each, ast.ImportFrom):
            result |= {alias.asname or alias.name for alias in each.names}
    for each in ast.walk(node) if isinstance(node, ast.ClassDef) else body(node):
        if isinstance(each, ast.Assign | ast.AnnAssign):
            targets = each.targets if isinstance(each, ast.Assign) else [each.target]
            result |= {name for target in targets for name in assigned(target)}
    return result


def assigned(target: ast.expr) -> set[str]:
    """``x``, ``self.x`` or a tuple of them."""
    parts = target.elts if isinstance(target, ast.Tuple) else [target]
    attributes = {part.attr for part in parts if isinstance(part, ast.Attribute)}
    return attributes | {part.id for part in parts if isinstance(part, ast.Name)}


def parameters(node: ast.FunctionDef) -> list[str]:
    """Of a function; of a method without self."""
    given = node.args
    own = [each.arg for each in (*given.posonlyargs, *given.args)]
    return [*(own[1:] if own[:1] in (["self"], ["cls"]) else own), *(each.arg for each in given.kwonlyargs)]


def mismatch(what: str, wanted: str, found: Sequence[str]) -> Iterator[str]:
    first, _, anywhere = wanted.partition("*")
    leading = first.split()
    if list(found[: len(leading)]) != leading:
        yield f"{what} takes ({', '.join(found)}), not ({', '.join(leading)}, ...)"
    for name in anywhere.split():
        if name not in found:
            yield f"{what} takes no {name}"


def calls(node: ast.AST) -> set[str]:
    """Names of what a function calls."""
    found = [each.func for each in ast.walk(node) if isinstance(each, ast.Call)]
    attributes = {each.attr for each in found if isinstance(each, ast.Attribute)}
    return attributes | {each.id for each in found if isinstance(each, ast.Name)}


if __name__ == "__main__":
    sys.exit("\n".join(Release(Path(sys.argv[1])).problems()))
