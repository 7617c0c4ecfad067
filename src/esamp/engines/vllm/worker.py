"""``worker_cls="esamp.engines.vllm.worker.Worker"``: vLLM's worker for this machine, with a runner that explores."""

from vllm.platforms import current_platform

if current_platform.is_cpu():
    from esamp.engines.vllm.worker_cpu import Worker
else:
    from esamp.engines.vllm.worker_gpu import Worker

__all__ = ["Worker"]
