"""A script that tests start: samples and telemetry of an engine with tensor parallelism, as JSON on the last line.

python run_tensor_parallel.py RANKS
"""

import json
import sys

from vllm import LLM, SamplingParams

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


def main() -> None:
    llm = LLM(
        str(embedded_path()),
        worker_cls="esamp.engines.vllm.worker.Worker",
        scheduler_cls="esamp.engines.vllm.scheduler.Scheduler",
        tensor_parallel_size=int(sys.argv[1]),
        enforce_eager=True,
        dtype="float32",
        max_model_len=128,
        max_num_seqs=16,
    )
    answers = {}
    for name, extra in CASES.items():
        sampling = SamplingParams(n=4, max_tokens=24, seed=3, ignore_eos=True, extra_args=extra)
        output = llm.generate(["Numbers: 3 5 7 2 Target: 24\n"], sampling, use_tqdm=False)[0]
        answers[name] = {
            "tokens": [list(sample.token_ids) for sample in output.outputs],
            "telemetry": llm.collective_rpc("esamp_telemetry", args=(output.request_id,)),
        }
    sys.stdout.write(json.dumps(answers) + "\n")


if __name__ == "__main__":
    main()
