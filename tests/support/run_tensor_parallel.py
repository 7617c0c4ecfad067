"""A script that tests start: samples and telemetry of an engine with tensor parallelism, as JSON on the last line.

python run_tensor_parallel.py RANKS
"""

import json
import sys
from typing import TYPE_CHECKING, Any

from esamp.models import embedded_path

CASES = {
    "none": None,
    "default": {"method": "esamp"},
    "both": {"method": "esamp", "signal": "both", "waves": 1},
    "reference": {"method": "esamp", "candidates": "reference", "distiller": "mean"},
    "filters": {"method": "xtc+top_n_sigma+arithmetic", "n_sigma": 2.0},
    "draw": {"method": "esamp+without_replacement"},
    "heads": {"method": "override+arithmetic", "rounds": 2},
}


if TYPE_CHECKING:
    from vllm import LLM

ENGINE: dict[str, Any] = dict(
    worker_cls="esamp.engines.vllm.worker.Worker",
    scheduler_cls="esamp.engines.vllm.scheduler.Scheduler",
    enforce_eager=True,
    dtype="float32",
    max_model_len=128,
    max_num_seqs=16,
)


def answers(llm: "LLM") -> dict[str, Any]:
    """The samples' tokens and the telemetry of each rank, for all `CASES`."""
    from vllm import SamplingParams

    found = {}
    for name, extra in CASES.items():
        sampling = SamplingParams(n=4, max_tokens=24, seed=3, ignore_eos=True, extra_args=extra)
        output = llm.generate(["Numbers: 3 5 7 2 Target: 24\n"], sampling, use_tqdm=False)[0]
        found[name] = {
            "tokens": [list(sample.token_ids) for sample in output.outputs],
            "telemetry": llm.collective_rpc("esamp_telemetry", args=(output.request_id,)),
        }
    return found


if __name__ == "__main__":
    from vllm import LLM

    engine = LLM(str(embedded_path()), tensor_parallel_size=int(sys.argv[1]), **ENGINE)
    sys.stdout.write(json.dumps(answers(engine)) + "\n")
