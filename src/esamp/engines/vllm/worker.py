"""``worker_cls="esamp.engines.vllm.worker.Worker"``: an exploring worker for this platform."""

from vllm.platforms import current_platform

if current_platform.is_cpu():
    from esamp.engines.vllm.workers.cpu import Worker
else:
    from esamp.engines.vllm.workers.gpu import Worker

__all__ = ["Worker"]
