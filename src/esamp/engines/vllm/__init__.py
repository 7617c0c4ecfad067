"""vLLM: the offline ``LLM``, the async engine and ``vllm serve``, extended by classes that vLLM is given by name.

    worker.Worker                --worker-cls: steers decode steps and trains the distillers, one worker per rank
    scheduler.Scheduler          --scheduler-cls: starts a request's samples together, or in waves
    admission.Admission          entry point: refuses bad parameters before a request reaches the engine
    server.middleware.Middleware --middleware: telemetry in responses and on /metrics
    server.launch                the command line of `esamp serve`, which names these classes
    engine.VLLMEngine            `esamp.engines.base.Engine` with these classes
    workers/                     what the worker does: runners, taps, LM head, groups and their slots

Nothing of vLLM is patched. An engine that is started without these names is unchanged.
"""
