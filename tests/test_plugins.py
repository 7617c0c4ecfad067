"""Plug-ins of other packages that fail when they are imported: they cost nobody but those who ask for them."""

import json
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from pathlib import Path

import pytest

from esamp import plugins
from esamp.cli import main
from esamp.compare.comparison import all_arms
from esamp.errors import EsampError, OptionError
from esamp.methods import registry
from esamp.tasks import registry as tasks

Output = pytest.CaptureFixture[str]

MODULES = {
    "raises": "raise RuntimeError('no \\x1b[2J licence\\nfor you')",
    "exits": "import sys; sys.exit('goodbye')",
    "lacks": "import a_package_that_nobody_has",
    "ours": "from esamp.errors import MissingDependencyError; raise MissingDependencyError('pip install theirs')",
    "wrong": "def thing(): pass",
    "nothing": "",
    "bare": "from esamp.methods.base import Method\nclass thing(Method): name = summary = 'x'",
}
"""Modules of somebody else's, by name."""
TOLD = {
    "raises": r"importing hostile_raises:thing failed (RuntimeError: no \x1b[2J licence for you); ask the package",
    "exits": "importing hostile_exits:thing failed (SystemExit: goodbye); ask the package",
    "lacks": "(ModuleNotFoundError: No module named 'a_package_that_nobody_has')",
    "ours": "pip install theirs",
    "wrong": "hostile_wrong:thing is not an esamp",
    "nothing": "importing hostile_nothing:thing failed (AttributeError: ",
    "bare": "declares no citation; ask the package",
}
SHADOW = EntryPoint("esamp", "hostile_raises:thing", registry.GROUP)
"""A stranger's method under the name of ours."""


@pytest.fixture(autouse=True)
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An environment in which these are installed."""
    for name, code in MODULES.items():
        (tmp_path / f"hostile_{name}.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))

    def all_of(group: str) -> EntryPoints:
        more = [EntryPoint(name, f"hostile_{name}:thing", group) for name in MODULES if name != "bare"]
        more += [SHADOW, EntryPoint("bare", "hostile_bare:thing", group)] if group == registry.GROUP else []
        return EntryPoints([*more, *entry_points(group=group)])

    monkeypatch.setattr(plugins, "entry_points", all_of)
    plugins.forget()
    registry.get.cache_clear()
    yield
    plugins.forget()
    registry.get.cache_clear()
    for name in MODULES:
        sys.modules.pop(f"hostile_{name}", None)


def test_other_plugins_are_available_beside_broken_ones() -> None:
    found = registry.available()
    assert not found.keys() & MODULES.keys()
    assert {"esamp", "fire", "vanilla", "best_of_n"} <= found.keys()
    assert found["esamp"].__module__ == "esamp.methods.esamp"  # a name of ours stays ours
    assert registry.get("esamp+fire").name == "esamp+fire"
    assert set(registry.broken()) == set(MODULES)
    assert set(tasks.broken()) == set(MODULES) - {"bare"}
    assert {"esamp", "raises"} <= {arm.method for arm in all_arms()}


@pytest.mark.parametrize("name", MODULES)
def test_requesting_a_broken_plugin_reports_its_error(name: str) -> None:
    for _ in range(2):
        with pytest.raises(EsampError) as raised:
            registry.get(name)
        assert TOLD[name] in str(raised.value)
        assert "\n" not in str(raised.value)
    with pytest.raises(EsampError):
        registry.get(f"esamp+{name}")


def test_lists_name_each_broken_plugin_in_one_line(capsys: Output) -> None:
    for command in (["methods"], ["study", "tasks"]):
        assert main(command) == 0
        printed = capsys.readouterr().out
        lines = printed[printed.index("cannot be used") :].splitlines()
        for name in MODULES.keys() - {"bare"}:
            [line] = [line for line in lines if line.startswith(f"  {name} ")]
            assert TOLD[name] in line
        assert "\x1b" not in printed
        assert main([*command, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert TOLD["exits"] in found["exits"]["error"]


def test_commands_that_do_not_use_the_plugin_work(capsys: Output) -> None:
    assert main(["methods", "esamp"]) == 0
    assert main(["generate", "--help"]) == 0
    assert main(["generate", "x", "--method", "exits"]) == 2
    assert TOLD["exits"] in capsys.readouterr().err


def test_a_failed_import_is_tried_once(tmp_path: Path) -> None:
    (tmp_path / "hostile_raises.py").write_text(
        f"with open({str(tmp_path / 'times')!r}, 'a') as file: file.write('x')\nraise RuntimeError('again')"
    )
    for _ in range(5):
        with pytest.raises(OptionError, match="again"):
            registry.get("raises")
    assert (tmp_path / "times").read_text() == "x"


def test_a_keyboard_interrupt_is_not_caught() -> None:
    class Point:
        name, value = "slow", "hostile:thing"

        def load(self) -> object:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        plugins._imported(Point())  # type: ignore[arg-type]
