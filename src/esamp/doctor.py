"""`diagnose`: what is installed and what works on this machine. Of the optional packages only torch is imported."""

import os
import platform
import re
from dataclasses import asdict, dataclass
from importlib.metadata import metadata, requires
from importlib.util import find_spec
from typing import Any

from esamp.engines.registry import ENTRIES
from esamp.engines.vllm import distribution as vllm
from esamp.extras import install_command, installed_version
from esamp.models import EMBEDDED, SMOLLM2, embedded_path, smollm2
from esamp.sandbox import FURTHER, MEANING, WITHOUT, available

PACKAGES = ("esamp", "torch", "transformers", *vllm.PACKAGES)
EXTRA = re.compile(r"^(?P<package>[\w.-]+).*;.*\bextra\s*==\s*['\"](?P<extra>[\w-]+)['\"]")


@dataclass(frozen=True)
class Check:
    name: str
    works: bool
    detail: str
    """a description, or what to do if it does not work"""


@dataclass(frozen=True)
class Diagnosis:
    """The content of the report of `esamp doctor`."""

    versions: dict[str, str | None]
    """by package; None if it is not installed"""
    devices: tuple[Check, ...]
    engines: tuple[Check, ...]
    models: tuple[Check, ...]
    extras: tuple[Check, ...]
    sandbox: tuple[Check, ...]
    """how programs that a model wrote are isolated when a task runs them"""

    @property
    def healthy(self) -> bool:
        """Whether samples can be generated: an engine works and the embedded model is there."""
        embedded = [check for check in self.models if check.name == EMBEDDED]
        return any(check.works for check in self.engines) and all(check.works for check in embedded)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"healthy": self.healthy}


def diagnose() -> Diagnosis:
    """Run all checks on this machine."""
    return Diagnosis(
        versions={"python": platform.python_version(), **{name: installed_version(name) for name in PACKAGES}},
        devices=_devices(),
        engines=tuple(Check(entry.name, *entry.state()) for entry in ENTRIES.values()),
        models=(_embedded(), Check(SMOLLM2, *smollm2.state())),
        extras=_extras(),
        sandbox=_sandbox(),
    )


def _devices() -> tuple[Check, ...]:
    cores = os.cpu_count() or 1
    if find_spec("torch") is None:
        return (Check("cpu", False, f"{cores} cores; torch is not installed: {install_command()}"),)
    import torch

    checks = [Check("cpu", True, f"{cores} cores, torch uses {torch.get_num_threads()} threads")]
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            checks.append(Check(f"cuda:{index}", True, f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"))
    else:
        built = torch.version.cuda or torch.version.hip
        checks.append(Check("cuda", False, "no GPU found" if built else "this build of torch is for the CPU only"))
    if torch.backends.mps.is_available():
        checks.append(Check("mps", True, "Apple GPU"))
    return tuple(checks)


def _embedded() -> Check:
    folder = embedded_path()
    weights = list(folder.glob("*.safetensors"))
    if not weights or not (folder / "config.json").is_file():
        return Check(EMBEDDED, False, f"no weights in {folder}: install esamp again, or `make model` in a clone")
    return Check(EMBEDDED, True, f"{sum(file.stat().st_size for file in weights) / 1e6:.1f} MB, {folder}")


def _extras() -> tuple[Check, ...]:
    """A check of each optional extra that the package's metadata declares."""
    if installed_version("esamp") is None:
        return ()
    needs: dict[str, list[str]] = {name: [] for name in metadata("esamp").get_all("Provides-Extra") or []}
    for requirement in requires("esamp") or []:
        if match := EXTRA.match(requirement):
            needs.setdefault(match["extra"], []).append(match["package"])
    return tuple(_extra(name, packages) for name, packages in needs.items())


def _extra(name: str, packages: list[str]) -> Check:
    missing = [package for package in packages if installed_version(package) is None]
    if missing:
        return Check(name, False, f"missing {', '.join(missing)}: {install_command(name)}")
    return Check(name, True, ", ".join(packages))


def _sandbox() -> tuple[Check, ...]:
    """What this machine isolates, as measured; for what is missing, the reason or the consequence."""
    isolation = available()
    limits = Check(
        "limits", True, "time, processes, files, output and the memory of each process; an empty environment"
    )
    missing = f"missing ({isolation.reason}): tasks refuse to run a model's code here unless code_isolation = 'allow'"
    held = (*isolation.provided, *isolation.further)
    essential = [Check(name, name in held, words if name in held else missing) for name, words in MEANING.items()]
    further = [Check(name, name in held, words if name in held else WITHOUT[name]) for name, words in FURTHER.items()]
    return (limits, *essential, *further)
