"""Settings of all tests (no network, few threads, reproducible examples), and the fixtures of several files."""

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ROOT = Path(__file__).resolve().parents[1]
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "")
THREADS = 1 if WORKER else 2
LONGEST = ("test_vllm", "test_docs", "test_quickstart", "test_kernels", "test_cli_help", "test_play", "test_study")
"""Beginnings of the names of files whose slow tests take a minute or more."""

# Set before libraries are imported, which read them then; processes started by tests inherit them.
os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "HF_HOME": str(ROOT / ".cache" / "huggingface"),
    "ESAMP_CACHE": str(ROOT / ".cache" / "esamp"),
    "VLLM_CACHE_ROOT": str(ROOT / ".cache" / "vllm"),
    "MPLCONFIGDIR": str(ROOT / ".cache" / "matplotlib"),
    "TORCHINDUCTOR_CACHE_DIR": str(ROOT / ".cache" / "inductor" / WORKER),
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": str(THREADS),
}

import torch  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

from support.scripted_server import ScriptedServer  # noqa: E402

settings.register_profile(
    "reproducible", derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("reproducible")
torch.set_num_threads(THREADS)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run files with slow tests first, those that take longest before others, so that none runs alone at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path not in slow, not item.path.name.startswith(LONGEST)))


@pytest.fixture(autouse=True)
def _same_random_state() -> None:
    """Start every test from the same random state."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository root."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder `shared` beside the repository, with models and data for extra checks; skips the test without one."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"no {folder}, which holds models and data for extra checks")
    return folder


@dataclass(frozen=True)
class ForkedCommands:
    """Runs `esamp` and Python code in forks of a process, see `support.forked_commands`."""

    client: tuple[str, ...]
    folder: Path
    """a folder for ``PATH`` with a program `esamp`"""

    def program(self, code: str) -> list[str]:
        """The command line that runs `code`."""
        return [*self.client, "-c", code]

    @property
    def path(self) -> str:
        """A ``PATH`` on which `esamp` is found first, then the environment's programs."""
        return os.pathsep.join([str(self.folder), str(Path(sys.executable).parent), os.environ["PATH"]])


@pytest.fixture(scope="session")
def forked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkedCommands]:
    folder = tmp_path_factory.mktemp("bin")
    address, script = folder / "socket", Path(__file__).parent / "support" / "forked_commands.py"
    client = (sys.executable, "-SEs", str(script), str(address))
    program = folder / "esamp"
    program.write_text(f'#!/bin/sh\nexec {shlex.join(client)} -m esamp "$@"\n')
    program.chmod(0o755)
    with subprocess.Popen([sys.executable, str(script), str(address)], stdin=subprocess.DEVNULL) as server:
        while not address.exists():
            assert server.poll() is None
            time.sleep(0.05)
        yield ForkedCommands(client, folder)
        server.kill()


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    """A headless Chromium that is installed on the machine or named by ``CHROMIUM``; skips the test without one.

    Its scope is a module, because Playwright's event loop would prevent tests of other files from starting one.
    """
    names = (os.environ.get("CHROMIUM"), "chromium", "chromium-browser", "google-chrome")
    path = next((found for name in names if name and (found := shutil.which(name))), None)
    if path is None:
        pytest.skip("no Chromium: `make test` installs one where it can, or set CHROMIUM=/path/to/it")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, chromium_sandbox=os.getuid() != 0)
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser: "Browser") -> Iterator[Callable[[Path], "Page"]]:
    """A function that opens a file as a page in an offline browser.

    The test fails at its end if a page requested another file or reported an error.
    """
    problems: list[str] = []
    context = browser.new_context(offline=True)
    context.on("weberror", lambda error: problems.append(str(error.error)))
    context.on("requestfailed", lambda request: problems.append(f"requested {request.url}"))
    context.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)

    def open_file(path: Path) -> "Page":
        page = context.new_page()
        page.goto(path.resolve().as_uri())
        return page

    yield open_file
    context.close()
    assert not problems


@pytest.fixture
def script() -> Iterator[ScriptedServer]:
    """A server whose replies the test sets."""
    scripted = ScriptedServer()
    yield scripted
    scripted.close()
