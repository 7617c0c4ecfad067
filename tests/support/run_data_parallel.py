"""A script that tests start: samples from the async engine with two data-parallel ranks, as JSON on the last line."""

import asyncio
import json
import sys

from vllm import AsyncEngineArgs, SamplingParams
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM

from esamp.models import embedded_path


async def generate(engine: AsyncLLM, name: str, rank: int, extra: dict | None) -> list[list[int]]:
    """All samples of one request, sent to one rank."""
    sampling = SamplingParams(
        n=4, max_tokens=24, seed=3, ignore_eos=True, extra_args=extra, output_kind=RequestOutputKind.FINAL_ONLY
    )
    prompt = {"prompt_token_ids": [1, *range(5, 25)]}
    outputs = [each async for each in engine.generate(prompt, sampling, name, data_parallel_rank=rank)]
    return [list(sample.token_ids) for sample in outputs[-1].outputs]


async def main() -> None:
    engine = AsyncLLM.from_engine_args(
        AsyncEngineArgs(
            str(embedded_path()),
            worker_cls="esamp.engines.vllm.worker.Worker",
            scheduler_cls="esamp.engines.vllm.scheduler.Scheduler",
            data_parallel_size=2,
            enforce_eager=True,
            dtype="float32",
            max_model_len=128,
            max_num_seqs=16,
        )
    )
    try:
        esamp = {"method": "esamp"}
        requests = [
            generate(engine, f"r{rank}-{name}", rank, extra)
            for rank in (0, 1)
            for name, extra in (("p", None), ("e", esamp))
        ]
        answers = await asyncio.gather(*requests)
    finally:
        engine.shutdown()
    sys.stdout.write(json.dumps(answers) + "\n")


if __name__ == "__main__":
    asyncio.run(main())
