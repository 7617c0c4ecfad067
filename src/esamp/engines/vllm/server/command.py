"""The command line of ``vllm serve`` with our classes in it.

``python -m esamp.engines.vllm.server.command serve ...`` runs ``vllm serve ...`` for re-packaged builds of vLLM, whose
own command fails: it looks up the version of a distribution called ``vllm``.
"""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from esamp.engines.vllm import distribution
from esamp.engines.vllm.settings import SCHEDULER_CLASS, SECTION, WORKER_CLASS, VLLMSettings
from esamp.errors import MissingDependencyError, OptionError, UnsupportedError
from esamp.models import AMATEUR, EMBEDDED, NAMES, SMOLLM2, resolve

CLASSES: Mapping[str, str] = {
    "--worker-cls": WORKER_CLASS,
    "--scheduler-cls": SCHEDULER_CLASS,
    "--middleware": "esamp.engines.vllm.server.middleware.Middleware",
}
"""vLLM's flags and the values that we give them, unless the user sets the flag."""
ADDITIONAL_CONFIG, ADDITIONAL_CONFIG_SHORT = "--additional-config", "-ac"
RUST_FRONT_END = "VLLM_USE_RUST_FRONTEND"
CACHES: Mapping[str, str] = {EMBEDDED: "512M", AMATEUR: "512M", SMOLLM2: "2G"}
"""Size of the KV cache for each of our models, enough for some hundred samples. By default vLLM takes nearly all
memory, and fails on a CPU where other programs use some."""
MEMORY_FLAGS = frozenset({"--kv-cache-memory-bytes", "--gpu-memory-utilization"})
MEMORY_VARIABLE = "VLLM_CPU_KVCACHE_SPACE"


def vllm_arguments(given: Sequence[str], settings: VLLMSettings) -> list[str]:
    """The arguments of ``vllm serve`` for the arguments of ``esamp serve``.

    A model comes first in `given`; without one it is the embedded model. One of our own models is served under its
    name. Flags that the user gives are kept, and of ``additional_config`` only our own section is changed.

    Raises:
        OptionError: the user's ``--additional-config`` is no JSON object, or our section of it has wrong settings.
    """
    rest, model = list(given), []
    flags = {_flag(argument) for argument in rest}
    if rest and not rest[0].startswith("-"):
        model = _model_arguments(rest.pop(0), flags)
    elif not flags & {"--model", "--config"}:
        model = _model_arguments(EMBEDDED, flags)
    classes = [part for flag, name in CLASSES.items() if _is_missing(flag, name, flags, rest) for part in (flag, name)]
    return [*model, *classes, *_with_settings(rest, settings)]


def serve_command(arguments: Sequence[str]) -> list[str]:
    """The command that serves with these arguments, in this Python and without the current folder on its path.

    Raises:
        MissingDependencyError: vLLM is not installed.
        UnsupportedError: vLLM is too old, was not installed with pip, or uses its Rust front end.
    """
    if find_spec("vllm") is None:
        raise MissingDependencyError(f"esamp serve needs vLLM: {distribution.install_hint()}")
    if os.environ.get(RUST_FRONT_END, "0") != "0":
        raise UnsupportedError(
            f"{RUST_FRONT_END} = {os.environ[RUST_FRONT_END]}: vLLM's Rust front end has no middleware; unset it"
        )
    installed = distribution.find()
    if installed is None:
        raise UnsupportedError(
            f"there is a module vllm, but it was not installed with pip: {distribution.install_hint()}"
        )
    if problem := distribution.outdated(installed.version):
        raise UnsupportedError(problem)
    module = "vllm.entrypoints.cli.main" if installed.name == "vllm" else "esamp.engines.vllm.server.command"
    return [sys.executable, "-P", "-m", module, "serve", *arguments]


def version_warning() -> str | None:
    """A warning if the installed vLLM is newer than the newest tested one."""
    installed = distribution.find()
    return None if installed is None else distribution.untested(installed.version)


def main() -> None:
    """Run vLLM's own ``serve`` command with the arguments of this process."""
    from vllm.entrypoints.cli.serve import cmd_init
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")  # as vLLM's command does
    parser = FlexibleArgumentParser(prog="vllm")
    commands = parser.add_subparsers(required=True, dest="subparser")
    (serve,) = cmd_init()
    serve.subparser_init(commands)
    parsed = parser.parse_args()
    serve.validate(parsed)
    serve.cmd(parsed)


def _model_arguments(model: str, flags: set[str]) -> list[str]:
    """The model, and for one of our own its name and cache size, unless the user's `flags` set them."""
    if model not in NAMES:
        return [model]
    result = [str(resolve(model))]
    if "--served-model-name" not in flags:
        result += ["--served-model-name", model]
    if not (flags & MEMORY_FLAGS or MEMORY_VARIABLE in os.environ):
        result += ["--kv-cache-memory-bytes", CACHES[model]]
    return result


def _flag(argument: str) -> str:
    """The flag of an argument, ``--worker-cls`` for ``--worker_cls=x``. Other arguments are returned unchanged."""
    name = argument.partition("=")[0]
    return name.replace("_", "-") if name.startswith("--") else name


def _is_missing(flag: str, value: str, flags: set[str], rest: Sequence[str]) -> bool:
    """Whether our class must be added. The user's worker and scheduler replace ours; middleware can be given twice."""
    if flag == "--middleware":
        return value not in rest and f"{flag}={value}" not in rest
    return flag not in flags


def _with_settings(rest: Sequence[str], settings: VLLMSettings) -> list[str]:
    """`rest` with our settings in its ``--additional-config``, where they replace settings of the same name."""
    ours = settings.model_dump(mode="json", exclude_unset=True)
    dotted = any(_flag(part).startswith((f"{ADDITIONAL_CONFIG}.", f"{ADDITIONAL_CONFIG_SHORT}.")) for part in rest)
    whole = [index for index, part in enumerate(rest) if _flag(part) in (ADDITIONAL_CONFIG, ADDITIONAL_CONFIG_SHORT)]
    if dotted and whole:
        raise OptionError(f"give {ADDITIONAL_CONFIG} as JSON or key by key, not both: vLLM would drop the JSON")
    if dotted:  # vLLM merges these flags itself
        added = ((f"{ADDITIONAL_CONFIG}.{SECTION}.{key}", json.dumps(value)) for key, value in ours.items())
        return [*rest, *(part for flag in added for part in flag)]
    if not whole:
        return [*rest, *((ADDITIONAL_CONFIG, json.dumps({SECTION: ours})) if ours else ())]
    last = whole[-1]  # vLLM uses the last one
    _, joined, text = rest[last].partition("=")
    if not joined and last + 1 == len(rest):
        raise OptionError(f"{ADDITIONAL_CONFIG} requires an argument: a JSON object")
    theirs = _json_object(text if joined else rest[last + 1])
    section = VLLMSettings.read(theirs).model_dump(mode="json", exclude_unset=True) | ours
    merged = theirs | {SECTION: VLLMSettings.parse(section).model_dump(mode="json", exclude_unset=True)}
    return [*rest[:last], ADDITIONAL_CONFIG, json.dumps(merged), *rest[last + (1 if joined else 2) :]]


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise OptionError(f"{ADDITIONAL_CONFIG} {text[:80]!r} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise OptionError(f"{ADDITIONAL_CONFIG} {text[:80]!r}: expected a JSON object")
    return value


if __name__ == "__main__":
    main()
