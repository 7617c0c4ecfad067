"""vLLM: offline ``LLM``, async engine and ``vllm serve``, by classes that vLLM lets one name.

    worker.Worker        --worker-cls: steers and learns, one per rank
    scheduler.Scheduler  --scheduler-cls: starts a request's samples together, or in waves
    admission.Admission  entry point: refuses bad requests before they reach the engine
    serving.Middleware   --middleware: telemetry in responses and on /metrics
    launch               `esamp serve`: the command line with these names in it
    engine.VLLMEngine    `esamp.engines.base.Engine` on all of these

Nothing is patched: an engine without these names is as it was.
"""
