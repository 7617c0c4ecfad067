#!/bin/sh
# Set up .venv with the package and the extras named in $1 ("" or "test"). Instant when nothing has changed.
#
#   scripts/setup.sh [EXTRAS]
#
# PYTHON      the interpreter to use; by default the first of python3, python3.13, ... that is new enough
# TORCH_SPEC  what is given to `pip install` for torch, options included
set -eu
cd "$(dirname "$0")/.."
extras=${1:-}
venv=.venv
torch_spec=${TORCH_SPEC:-torch}
package=${extras:+.[$extras]}
package=${package:-.}

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
    die "no Python of version 3.11 or later found: install one, or name it: make PYTHON=/path/to/python3"
}

make_venv() {
    python=$(find_python)
    if ! "$python" -c 'import venv, ensurepip' >/dev/null 2>&1; then
        version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        die "$python cannot create virtual environments (its modules venv or ensurepip are missing).
  Debian, Ubuntu: sudo apt-get install python$version-venv
  otherwise name another interpreter: make PYTHON=/path/to/python3"
    fi
    say "Creating $venv with $("$python" --version)"
    "$python" -m venv --clear "$venv"
}

pip_install() { "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input "$@"; }

# A virtual environment holds absolute paths, so the clone's own path is part of what must not have changed.
wanted=$({ pwd -P; echo "$torch_spec"; cat pyproject.toml constraints.txt scripts/setup.sh; } | cksum)
stamp="$venv/.esamp-installed${extras:+-$extras}"
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
    exit 0
fi

home=$("$venv/bin/python" -c 'import sys; print(sys.prefix)' 2>/dev/null || true)
[ "$home" = "$(pwd -P)/$venv" ] && "$venv/bin/python" -m pip --version >/dev/null 2>&1 || make_venv

# torch comes first and stays as it is: the rest is resolved around the build that was chosen here.
say "Installing $torch_spec"
# shellcheck disable=SC2086  # the options in TORCH_SPEC are words of their own
pip_install $torch_spec
"$venv/bin/python" -c 'from importlib.metadata import version; print("torch==" + version("torch"))' >"$venv/torch.txt"
say "Installing esamp${extras:+[$extras]} and its dependencies"
pip_install --constraint constraints.txt --constraint "$venv/torch.txt" --editable "$package"
printf '%s\n' "$wanted" >"$stamp"
