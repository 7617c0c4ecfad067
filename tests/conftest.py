"""What every test gets: no network, few threads, reproducible examples, and fixtures for what a machine may lack."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ROOT = Path(__file__).resolve().parents[1]
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "")
THREADS = 1 if WORKER else 2

# Read when the libraries are imported, and by every process that a test starts.
os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "HF_HOME": str(ROOT / ".cache" / "huggingface"),
    "ESAMP_CACHE": str(ROOT / ".cache" / "esamp"),
    "TORCHINDUCTOR_CACHE_DIR": str(ROOT / ".cache" / "inductor" / WORKER),
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": str(THREADS),
}

import torch  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

from support.scripted_server import Scripted  # noqa: E402

settings.register_profile(
    "reproducible", derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("reproducible")
torch.set_num_threads(THREADS)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first: one that began last would keep one worker busy while the others are done."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True)
def _same_random_state() -> None:
    """Every test starts from the same random state, whatever ran before it."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository root."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder `shared` beside the repository, with models and data that are not part of it; skips without one."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"no {folder}, which holds models and data for extra checks")
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    """A headless Chromium that is installed on the machine; skips without one. ``CHROMIUM`` may name it.

    For one file of tests: Playwright keeps an event loop running, in which other files' tests could start none.
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
    """A function that opens a file as a page without a network.

    The test fails at its end when a page asked for anything but its own file, or reported an error.
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
def script() -> Iterator[Scripted]:
    """A server that answers with what a test tells it to."""
    scripted = Scripted()
    yield scripted
    scripted.close()
