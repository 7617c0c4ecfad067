"""vLLM: the offline ``LLM``, the async engine and ``vllm serve``, extended by classes that vLLM imports by name.

    worker.Worker                --worker-cls: steers decode steps and trains the distillers, one worker per rank
    scheduler.Scheduler          --scheduler-cls: starts a request's samples together, or in waves
    admission.Admission          entry point: refuses bad parameters before a request reaches the engine
    server.middleware.Middleware --middleware: telemetry in responses and on /metrics
    server.command               the command line of ``vllm serve`` with these classes in it, for `esamp serve`
    engine.VLLMEngine            `esamp.engines.base.Engine` with these classes
    workers/                     what the worker does: runners, taps, LM head, groups and their slots

Nothing of vLLM is patched. An engine that is started without these names is unchanged. The parts of vLLM's private API
that the classes override, call or read are named in their docstrings; tests check every supported release for them.
"""
