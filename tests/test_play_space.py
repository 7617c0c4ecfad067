"""The Space: one file that serves the playground in public."""

import os
import subprocess
import sys
import tomllib
from http.client import HTTPConnection
from pathlib import Path

import pytest
from packaging.requirements import Requirement

pytest.importorskip("gradio", reason="Gradio is not installed: pip install 'esamp[play]'")

from esamp.play.server import listen
from support.play_runs import wait_until


@pytest.fixture
def space(root: Path) -> Path:
    return root / "hub" / "space"


def get(port: int, path: str = "/", **headers: str) -> tuple[int, str]:
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    try:
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def answers(port: int) -> bool:
    try:
        return get(port)[0] == 200
    except OSError:
        return False


@pytest.mark.slow
def test_the_file_serves_the_page_under_any_name(space: Path) -> None:
    with listen("127.0.0.1", 0) as probe:
        port = probe.getsockname()[1]
    environment = os.environ | {"ESAMP_MODEL": "countdown", "GRADIO_SERVER_PORT": str(port)}
    with subprocess.Popen([sys.executable, str(space / "app.py")], env=environment) as process:
        try:
            wait_until(lambda: answers(port), seconds=120)
            status, page = get(port, host="name.hf.space")
            assert status == 200
            assert "ESamp playground" in page
            process.terminate()
            assert process.wait(30) in (0, -15)
        finally:
            process.kill()


def test_the_card_and_the_requirements_are_those_of_the_package(space: Path, root: Path) -> None:
    lines = (space / "README.md").read_text().split("---")[1].strip().splitlines()
    card = dict(line.split(": ", 1) for line in lines)
    assert card["sdk"] == "gradio"
    assert (space / card["app_file"]).is_file()
    required = Requirement((space / "requirements.txt").read_text().strip())
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    [gradio] = [Requirement(text) for text in project["optional-dependencies"]["play"] if text.startswith("gradio")]
    assert required.name == project["name"]
    assert required.extras == {"play"}
    assert card["sdk_version"] in gradio.specifier
