"""The cache of models: whole folders whatever happens to the process, the disk or another process."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from esamp.errors import EsampError
from esamp.models import store
from esamp.models.store import MANIFEST, WEIGHTS, CachedModel
from support.model_hub import write_tiny_model

TINY = CachedModel("tiny", version=1, bytes_needed=1_000_000)
MAKING = """
import shutil, sys, time
from pathlib import Path
from esamp.models.store import CachedModel
source, pause = Path(sys.argv[1]), float(sys.argv[2])
def make(target):
    print("making", flush=True)
    for file in source.iterdir():
        shutil.copyfile(file, target / file.name)
        time.sleep(pause)
    return {"source": "test"}
print(CachedModel("tiny", version=1, bytes_needed=1).get(make))
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_model(folder)
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ESAMP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


class Maker:
    """Copies a model, and counts how often it was asked to."""

    def __init__(self, source: Path) -> None:
        self.source, self.calls = source, 0

    def __call__(self, target: Path) -> dict[str, str]:
        self.calls += 1
        for file in self.source.iterdir():
            shutil.copyfile(file, target / file.name)
        return {"source": "test"}


def start(tiny: Path, pause: float = 0.0) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", MAKING, str(tiny), str(pause)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def entries(cache: Path) -> list[str]:
    """What is in the cache beside the lock file."""
    return sorted(path.name for path in cache.iterdir() if path.suffix != ".lock")


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ESAMP_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert store.cache_root() == tmp_path / "own"
    monkeypatch.delenv("ESAMP_CACHE")
    assert store.cache_root() == tmp_path / "xdg" / "esamp"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert store.cache_root() == tmp_path / ".cache" / "esamp"


def test_a_model_is_made_once_and_its_manifest_names_source_and_files(tiny: Path, cache: Path) -> None:
    make = Maker(tiny)
    assert TINY.get(make) == TINY.get(make) == cache / "tiny"
    assert make.calls == 1
    manifest = json.loads((cache / "tiny" / MANIFEST).read_text())
    assert manifest["source"] == "test"
    assert manifest["files"].keys() == {path.name for path in tiny.iterdir()}
    assert TINY.manifest(hash_weights=True) == manifest
    assert entries(cache) == ["tiny"]


def _truncate(folder: Path) -> None:
    os.truncate(folder / WEIGHTS, (folder / WEIGHTS).stat().st_size - 1)


def _other_header(folder: Path) -> None:
    data = bytearray((folder / WEIGHTS).read_bytes())
    data[8:16] = b"\xff" * 8
    (folder / WEIGHTS).write_bytes(data)


DAMAGES = {
    "truncated weights": _truncate,
    "weights with a broken header": _other_header,
    "no weights": lambda folder: (folder / WEIGHTS).unlink(),
    "no tokenizer": lambda folder: (folder / "tokenizer.json").unlink(),
    "a changed file": lambda folder: (folder / "config.json").write_text(
        (folder / "config.json").read_text().replace("2", "3", 1)
    ),
    "no manifest": lambda folder: (folder / MANIFEST).unlink(),
    "half a manifest": lambda folder: os.truncate(folder / MANIFEST, 20),
    "a manifest that is a list": lambda folder: (folder / MANIFEST).write_text("[]"),
    "an older version": lambda folder: (folder / MANIFEST).write_text(
        (folder / MANIFEST).read_text().replace('"version": 1', '"version": 0')
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_folder_is_made_again(tiny: Path, cache: Path, damage: str) -> None:
    make = Maker(tiny)
    folder = TINY.get(make)
    DAMAGES[damage](folder)
    assert TINY.manifest() is None
    assert TINY.get(make) == folder
    assert make.calls == 2
    assert (folder / WEIGHTS).read_bytes() == (tiny / WEIGHTS).read_bytes()
    assert entries(cache) == ["tiny"]


def test_hashing_the_weights_finds_a_flipped_bit(tiny: Path) -> None:
    weights = TINY.get(Maker(tiny)) / WEIGHTS
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert TINY.manifest() is not None
    assert TINY.manifest(hash_weights=True) is None


def test_weights_that_contradict_the_configuration_are_refused_and_removed(tiny: Path, cache: Path) -> None:
    def make(target: Path) -> dict[str, str]:
        Maker(tiny)(target)
        config = json.loads((target / "config.json").read_text())
        (target / "config.json").write_text(json.dumps(config | {"vocab_size": 65}))
        return {}

    with pytest.raises(EsampError, match=r"tensor model.embed_tokens.weight .* shape \(64, 16\), expected \(65, 16\)"):
        TINY.get(make)
    assert entries(cache) == []


def test_two_processes_get_one_whole_folder(tiny: Path, cache: Path) -> None:
    runs = [start(tiny, pause=0.1) for _ in range(2)]
    outputs = [run.communicate(timeout=60) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], outputs
    assert sorted(out.split("\n")[-2] for out, _ in outputs) == [str(cache / "tiny")] * 2
    assert sum("making" in out for out, _ in outputs) == 1
    assert any("another process is preparing tiny" in err for _, err in outputs)
    assert TINY.manifest(hash_weights=True) is not None


def test_a_killed_process_leaves_nothing_that_is_used(tiny: Path, cache: Path) -> None:
    killed = start(tiny, pause=30)
    assert killed.stdout is not None
    assert killed.stdout.readline() == "making\n"
    while not any(cache.glob(".tiny-*.part/*")):
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert any(cache.glob(".tiny-*.part"))
    assert TINY.manifest() is None
    TINY.get(Maker(tiny))
    assert entries(cache) == ["tiny"]


def test_an_interruption_leaves_nothing(tiny: Path, cache: Path) -> None:
    def make(target: Path) -> dict[str, str]:
        Maker(tiny)(target)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        TINY.get(make)
    assert entries(cache) == []


def test_a_disk_with_too_little_room_is_refused_before_anything_is_written(tiny: Path, cache: Path) -> None:
    make = Maker(tiny)
    with pytest.raises(EsampError, match=r"the disk of .*models is full: free 300 MB, or set ESAMP_CACHE"):
        CachedModel("tiny", version=1, bytes_needed=1 << 60).get(make)
    assert make.calls == 0
    assert entries(cache) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("library", ["python", "safetensors"])
def test_a_disk_that_fills_up_while_writing_is_one_error_and_leaves_nothing(
    cache: Path, number: int, library: str
) -> None:
    def make(target: Path) -> dict[str, str]:
        (target / WEIGHTS).write_bytes(b"half")
        if library == "python":
            raise OSError(number, os.strerror(number))
        text = f"Error while serializing: I/O error: {os.strerror(number)} (os error {number})"
        raise store.SafetensorError(text)

    with pytest.raises(EsampError, match=r"the disk of .* is full"):
        TINY.get(make)
    assert entries(cache) == []


def test_a_file_that_may_not_grow_is_one_error_and_leaves_nothing(tiny: Path, cache: Path) -> None:
    limited = (
        "import resource, signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", limited + MAKING, str(tiny), "0"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "esamp.errors.EsampError: cannot write to the model cache" in done.stderr
    assert "File too large -- set ESAMP_CACHE to a folder that can be written" in done.stderr
    assert entries(cache) == []


def test_a_cache_that_is_a_file_is_one_error(tiny: Path, cache: Path) -> None:
    cache.parent.write_text("")
    with pytest.raises(EsampError, match=r"cannot write to the model cache .*: Not a directory -- set ESAMP_CACHE"):
        TINY.get(Maker(tiny))


def test_a_read_only_cache_is_one_error_unless_the_model_is_in_it(tiny: Path, tmp_path: Path) -> None:
    readable = tmp_path / "readable"
    shutil.copytree(tiny, readable)
    unprivileged = "import os\nif os.getuid() == 0: os.setuid(65534)\n"

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", PRELOADED + unprivileged + MAKING, str(readable), "0"],
            capture_output=True,
            text=True,
            check=False,
        )

    for folder in (tmp_path, *tmp_path.parents):
        if not folder.stat().st_mode & 0o001:
            if folder.stat().st_uid != os.getuid() or tmp_path.parents[2] not in (folder, *folder.parents):
                pytest.skip(f"{folder} cannot be entered by another user")
            folder.chmod(0o755)
    (tmp_path / "cache").mkdir(mode=0o555)
    refused = run()
    assert "cannot write to the model cache" in refused.stderr
    assert "Permission denied -- set ESAMP_CACHE to a folder that can be written" in refused.stderr
    (tmp_path / "cache").chmod(0o755)
    TINY.get(Maker(tiny))
    for folder in (tmp_path / "cache", tmp_path / "cache" / "models"):
        folder.chmod(0o555)
    done = run()
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "cache" / "models" / "tiny")


PRELOADED = "import esamp.models.store, numpy, shutil, time\n"
"""The other user may not be able to read the package."""
