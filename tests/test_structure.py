"""The shape of the house: imports go one way, and files and functions stay small enough to be read."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import esamp

PACKAGE = Path(esamp.__path__[0])
FLOORS = (
    {"errors", "extras", "quoting"},
    {"files"},
    {"options", "plugins"},
    {"decoding", "sampling"},
    {"explorer"},
    {"methods"},
    {"metrics", "sandbox"},
    {"tasks"},
    {"models"},
    {"engines"},
    {"search", "doctor"},
    {"runs"},
    {"study"},
    {"analysis"},
    {"report"},
    {"compare"},
    {"judge", "bench", "rl", "play"},
    {"cli"},
)
"""The rooms of the package from the ground up: none imports one of a higher floor or another one of its own."""

FILE_LINES = 300
FUNCTION_LINES = 60
FILES = sorted(PACKAGE.rglob("*.py"))


def floor(room: str) -> int:
    """On which floor a room is."""
    floors = [level for level, rooms in enumerate(FLOORS) if room in rooms]
    assert floors, f"'{room}' is on no floor: add it to FLOORS"
    return floors[0]


def room_of(file: Path) -> str:
    """The room that a file belongs to."""
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(file: Path, tree: ast.Module) -> Iterator[str]:
    """Every room that a file imports from, at its top or inside a function; relative imports stay in their folder."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "esamp":
            names = [f"esamp.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = [node.module]
        else:
            continue
        yield from (name.split(".")[1] for name in names if name.startswith("esamp."))


def lines_of_code(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from the signature to the end, without the docstring."""
    docstring = ast.get_docstring(function, clean=False)
    return (function.end_lineno or 0) - function.lineno + 1 - (docstring.count("\n") + 1 if docstring else 0)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_a_file_is_small_and_imports_downwards(file: Path) -> None:
    text = file.read_text()
    tree = ast.parse(text)
    assert text.count("\n") <= FILE_LINES
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert lines_of_code(node) <= FUNCTION_LINES, node.name
    room = room_of(file)
    if room not in ("__init__", "__main__"):
        for imported in set(imported_rooms(file, tree)) - {room}:
            assert floor(imported) < floor(room), f"{room} imports {imported}"


def test_a_class_name_stands_for_one_thing() -> None:
    """But for `Worker`: vLLM's are so called for every device, and ours extend them."""
    names = [
        node.name
        for file in FILES
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ClassDef) and node.name != "Worker"
    ]
    assert [name for name, times in Counter(names).items() if times > 1] == []


@pytest.mark.parametrize("file", sorted(Path(__file__).parent.rglob("*.py")), ids=lambda file: file.stem)
def test_no_test_module_is_imported(file: Path) -> None:
    """What several test modules need lives in `support`."""
    for node in ast.walk(ast.parse(file.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
        assert not any(part.startswith("test_") for name in (*names, module) for part in name.split(".")), file


ARCHITECTURE = PACKAGE.parents[1] / "docs" / "architecture.md"
REFERENCES = sorted(set(re.findall(r"`((?:\w+/)*\w+\.py)(?::([\w.]+))?`", ARCHITECTURE.read_text())))


def test_the_architecture_names_many_places() -> None:
    assert len(REFERENCES) > 30


@pytest.mark.parametrize(("path", "name"), REFERENCES, ids=lambda value: value or "file")
def test_a_place_that_the_architecture_names_exists(path: str, name: str) -> None:
    """A file of the package or the tests, and in it a class, a function or a class's method."""
    found = [folder / path for folder in (PACKAGE, PACKAGE.parents[1]) if (folder / path).is_file()]
    assert found or any(file.name == path for file in FILES) or "NAME" in path, path
    body: list[ast.stmt] = ast.parse(found[0].read_text()).body if found else []
    for part in name.split(".") if name else []:
        definitions = [node for node in body if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == part]
        assert definitions, f"{path} has no {name}"
        body = definitions[0].body
