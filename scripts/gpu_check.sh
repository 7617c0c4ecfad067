#!/bin/sh
# Run on a machine with a CUDA GPU what no other machine can: the kernels' tests, the GPU tests with both of vLLM's model runners, the check of
# the seams, and the benchmarks. Prints a summary; everything that was printed stays in the folder. Installs nothing.
#
#   scripts/gpu_check.sh [FOLDER]       FOLDER: where the output goes, by default build/gpu
#
# Before, once, into the Python that is to be used:   pip install -e ".[vllm,test]"
#
# PYTHON  that Python, by default .venv/bin/python if there is one, else python3
# SHAPES  what `esamp bench --shape` measures, by default "qwen2.5-0.5b"
# PAIRS   interleaved pairs of runs in each benchmark, by default 9
set -eu
cd "$(dirname "$0")/.."
out=${1:-build/gpu}
[ -x .venv/bin/python ] && python=${PYTHON:-.venv/bin/python} || python=${PYTHON:-python3}
shapes=${SHAPES:-qwen2.5-0.5b}
pairs=${PAIRS:-9}
failed=

die() { printf 'error: %s\n' "$*" >&2; exit 1; }
# step NAME COMMAND...: its output goes to NAME.log; what fails is remembered, and the rest still runs.
step() {
    name=$1
    shift
    printf '%-28s ' "$name"
    if "$@" >"$out/$name.log" 2>&1; then echo ok; else
        echo "FAILED, see $out/$name.log"
        failed="$failed $name"
    fi
}
tests() { "$python" -m pytest -p no:cacheprovider "--junitxml=$out/$1.xml" "$2"; }
bench() { "$python" -m esamp.cli bench --engine vllm --device cuda --pairs "$pairs" "$@"; }
counts() { "$python" -m esamp.cli bench --count --device cuda "$@"; }
scaling() { "$python" -m esamp.cli bench scaling --device cuda "$@"; }

"$python" -c 'import torch; raise SystemExit(not torch.cuda.is_available())' 2>/dev/null ||
    die "$python finds no CUDA GPU through torch"
"$python" -c 'import esamp, pytest, vllm' 2>/dev/null || die "missing packages: $python -m pip install -e '.[vllm,test]'"
mkdir -p "$out"
{
    nvidia-smi || true
    "$python" -c 'import torch, vllm; print("torch", torch.__version__, "vllm", vllm.__version__)'
    git rev-parse HEAD || true
} >"$out/machine.txt" 2>&1

step seams tests seams tests/test_vllm_seams.py
step kernels env -u TRITON_INTERPRET "$python" -m pytest -p no:cacheprovider "--junitxml=$out/kernels.xml" tests/kernels
step concurrent tests concurrent tests/test_explorer_concurrent.py
for runner in 1 0; do
    export VLLM_USE_V2_MODEL_RUNNER=$runner
    version=v$((runner + 1))
    step "tests-$version" tests "tests-$version" tests/test_vllm_gpu.py
    step "bench-$version-countdown" bench --json
    for shape in $shapes; do
        step "bench-$version-$shape-1x16" bench --shape "$shape" --json
        step "bench-$version-$shape-8x16" bench --shape "$shape" --prompts 8 --json
        step "bench-$version-$shape-paper" bench --shape "$shape" --prompts 8 --preset paper --json
        step "bench-$version-$shape-paper-capture" bench --shape "$shape" --prompts 8 --preset paper --capture --json
    done
done
unset VLLM_USE_V2_MODEL_RUNNER
step counts counts --method esamp:distiller=mean --against esamp:distiller=rls --against esamp:preset=paper
step scaling scaling
step scaling-paper scaling --preset paper
step scaling-paper-capture scaling --preset paper --capture

echo
for log in "$out"/kernels.log "$out"/concurrent.log "$out"/tests-*.log; do printf '%s: %s\n' "$(basename "$log" .log)" "$(tail -n 1 "$log")"; done
for log in "$out"/bench-*.log; do printf '%s: %s\n' "$(basename "$log" .log)" "$(tail -n 1 "$log")"; done
for log in "$out"/counts.log "$out"/scaling*.log; do printf '%s:\n' "$(basename "$log" .log)" && cat "$log"; done
[ -z "$failed" ] || die "failed:$failed"
