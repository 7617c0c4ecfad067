"""Reasoning Gym: finding the answer, the library's verifiers, and texts that attack them."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esamp.errors import OptionError
from esamp.study.grid import item_key
from esamp.tasks.gym_verifier import EVALUATING, LENIENT, SYMBOLIC, GymVerifier, is_safe
from esamp.tasks.reasoning_gym import LenientVerifierWarning, ReasoningGym, ReasoningGymOptions, answer_of

pytest.importorskip("reasoning_gym", reason="reasoning-gym is not installed: pip install -e '.[tasks]'")


def built(**options: Any) -> ReasoningGym:
    return ReasoningGym.build(ReasoningGymOptions.parse(options))


@pytest.fixture(scope="module")
def puzzle() -> Iterator[ReasoningGym]:
    """A family whose verifier runs answers as Python, through sympy's parser."""
    task = built(family="puzzle24", size=3)
    yield task
    task._verifier.close()


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<answer>4</answer>", "4"),
        ("<answer>4</answer> no: <answer>\n5 </answer>.", "5"),
        ("<answer>4 <answer>5</answer>", "5"),
        ("<ANSWER>4</ANSWER>\nAnswer: 5", "4"),
        ("<answer>a\nb</answer>", "a\nb"),
        ("<answer>4", "<answer>4"),
        ("Answer: 4\nAnswer: 5\nso it is", "5"),
        ("**Answer:** 5**", "5"),
        ("The final answer:\n7\n8", "7"),
        ("I think\n 5 \n\n", "5"),
        ("<answer></answer>", ""),
        ("", ""),
    ],
    ids=ascii,
)
def test_the_answer_is_tagged_marked_or_the_last_line(text: str, answer: str) -> None:
    assert answer_of(text) == answer


@given(st.text(max_size=60))
def test_any_text_yields_an_answer_or_none(text: str) -> None:
    assert answer_of(text) == answer_of(text).strip()
    assert answer_of(f"{text}\n<answer>5</answer>") == "5"


@pytest.mark.timeout(20)
def test_long_texts_finish_within_the_time_limit(tmp_path: Path) -> None:
    for piece in ("<answer>", "answer: ", "answer *****", "</answer>", "\n" * 50):
        answer_of(piece * 20_000)
    for family in (*SYMBOLIC, *EVALUATING):
        assert not is_safe(family, "9" * 9_000 + "!")
        assert not is_safe(family, "sin" * 3_000 + "!")


def test_problems_depend_on_seed_and_config_only() -> None:
    one, again = built(size=4), built(size=4)
    assert one.items() == again.items()
    assert [item_key(item) for item in one.items()] == [item_key(item) for item in again.items()]
    other = built(size=4, problem_seed=1)
    assert {item.prompt for item in one.items()}.isdisjoint(item.prompt for item in other.items())
    assert {item.id for item in one.items()}.isdisjoint(item.id for item in other.items())
    hard = built(size=4, config={"min_terms": 6, "max_terms": 6})
    assert {item_key(item) for item in one.items()}.isdisjoint(map(item_key, hard.items()))
    assert len(one.items(limit=2)) == 2


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"family": "nothing"}, "no family 'nothing': choose from ab, acre, .*zebra_puzzles"),
        ({"config": {"seed": 1}}, "give the option 'problem_seed'"),
        ({"config": {"size": 1}}, "give the option 'size'"),
        ({"config": {"colour": 1}}, "basic_arithmetic refuses its config"),
        ({"config": {"min_terms": -1}}, "basic_arithmetic refuses its config"),
        ({"size": 0}, "size"),
    ],
    ids=["family", "seed", "size", "unknown", "range", "none"],
)
def test_invalid_options_are_named(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(OptionError, match=sentence):
        built(**options)


def test_the_reference_answers_of_the_library_are_right() -> None:
    for family in ("basic_arithmetic", "n_queens"):
        task = built(family=family, size=2)
        with task._verifier:
            for item in task.items():
                right = task.grade(item, f"so <answer>{item.data['answer']}</answer>")
                assert (right.correct, right.reason) == (True, "correct")
                assert right.canonical == " ".join(str(item.data["answer"]).split())
                wrong = task.grade(item, "<answer>12345</answer>")
                assert (wrong.correct, wrong.reason) == (False, "another answer")


def test_a_partial_score_is_wrong() -> None:
    task = built(family="basic_arithmetic", size=1)
    (item,) = task.items()
    with task._verifier as verifier:
        score, _ = verifier.score(f"{item.data['answer']} apples", task._entries[item.id])
        assert 0 < score < 1
        assert not task.grade(item, f"<answer>{item.data['answer']} apples</answer>").correct


def test_a_different_valid_solution_is_right(puzzle: ReasoningGym) -> None:
    item = puzzle.items()[0]
    assert puzzle.grade(item, f"<answer>({item.data['answer']})</answer>").correct
    assert not puzzle.grade(item, "<answer>24</answer>").correct


HOSTILE = (
    "__import__('os').system('touch {0}')",
    "open('{0}', 'w')",
    "().__class__.__base__.__subclasses__()",
    "preview(x)",
    "S('1')",
    "exit()",
    "lambda: 1",
    "x.y",
    "[1 for x in y]",
)


@pytest.mark.parametrize("family", sorted(SYMBOLIC | EVALUATING))
def test_code_never_reaches_verifiers_that_would_run_it(family: str) -> None:
    assert not any(is_safe(family, text) for text in HOSTILE)
    assert not is_safe(family, "\0")
    assert not is_safe(family, "1" * 10_001)


def test_the_lists_contain_every_family_that_evaluates_answers() -> None:
    import reasoning_gym
    from reasoning_gym.factory import DATASETS

    running = set()
    for name, (kind, _) in DATASETS.items():
        text = (Path(reasoning_gym.__path__[0]) / Path(*kind.__module__.split(".")[1:])).with_suffix(".py").read_text()
        grading = text[text.find("def score_answer") :] if "def score_answer" in text else ""
        if any(call in grading for call in ("eval(answer", "exec(answer", "parse_expr(answer", "sympify(answer")):
            running.add(name)
    assert running == SYMBOLIC | EVALUATING


def test_formulas_are_safe() -> None:
    for formula in ("x**2/2 + C", "-2*exp(3*x)*sin(x)/7 + C", "(1 + 2.5)*3/(4-1)", "asin(x) + log(x)", "6*z**2 - 9*z"):
        assert is_safe("simple_integration", formula), formula
    assert not is_safe("simple_integration", "import x")


def test_hostile_answers_are_wrong_and_the_next_one_is_graded(puzzle: ReasoningGym, tmp_path: Path) -> None:
    item = puzzle.items()[0]
    made = tmp_path / "made"
    for text in (
        *HOSTILE,
        "",
        " ",
        "\0",
        "\ud800",
        "(" * 5_000,
        "9" * 9_000,
        "1/0",
        "x" * 100_000,
        "nan",
        "((",
        "<answer>",
    ):
        grade = puzzle.grade(item, f"<answer>{text.replace('{0}', str(made))}</answer>")
        assert not grade.correct, text[:40]
    assert not made.exists()
    assert puzzle.grade(item, f"<answer>{item.data['answer']}</answer>").correct


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_verifier_that_exceeds_its_time_is_stopped() -> None:
    task = built(family="puzzle24", size=1)
    (item,) = task.items()
    with GymVerifier("puzzle24", {"seed": 0, "size": 1}, seconds=2.0) as verifier:
        entry = task._entries[item.id]
        assert verifier.score(str(item.data["answer"]), entry)[0] == 1.0
        assert verifier.score("9**9**9**9", entry)[0] < 1
        assert verifier.score(str(item.data["answer"]), entry)[0] == 1.0


WATCHED = """
import os, socket, subprocess, sys, sysconfig
from functools import partial
from esamp.tasks.gym_verifier import _audit
import json.tool
target = sys.argv[1]
sys.addaudithook(partial(_audit, (sysconfig.get_paths()["stdlib"],)))
acts = {
    "write": lambda: open(target, "w"), "read": lambda: open("/etc/passwd"), "system": lambda: os.system("true"),
    "start": lambda: subprocess.Popen(["true"]), "net": lambda: socket.socket(), "remove": lambda: os.remove(target),
    "low": lambda: os.open(target, os.O_CREAT | os.O_RDWR),
}
for name, act in acts.items():
    try:
        act()
    except PermissionError:
        print("refused", name)
open(os.__file__).close()
print("read a module")
"""


def test_the_verifier_process_may_not_write_files_or_start_processes(tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    command = [sys.executable, "-c", WATCHED, str(tmp_path / "there")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    refused = [f"refused {name}" for name in ("write", "read", "system", "start", "net", "remove", "low")]
    assert done.stdout.splitlines() == [*refused, "read a module"]
    assert (tmp_path / "there").exists()


def test_verifiers_print_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    task = built(family="jugs", size=1)
    (item,) = task.items()
    with task._verifier:
        assert not task.grade(item, "<answer>[[</answer>").correct
    assert capfd.readouterr() == ("", "")
    assert json.dumps(dict(item.data))


@pytest.mark.slow
@pytest.mark.parametrize("text", ["nan", "-nan", "NaN", "nanj", "inf", "1 + nanj", "**nan**", "-Infinity"])
def test_nan_and_infinity_are_wrong(text: str) -> None:
    """The library turns a distance of NaN into a score of 1."""
    task = built(family="complex_arithmetic", size=2)
    item = task.items()[0]
    grade = task.grade(item, f"<answer>{text}</answer>")
    assert (grade.correct, grade.reason) == (False, "not a number")
    assert task.grade(item, f"<answer>{item.data['answer']}</answer>").correct
    task._verifier.close()


def test_words_that_contain_nan_are_verified() -> None:
    with GymVerifier("letter_counting", {"seed": 0, "size": 1}) as verifier:
        assert verifier.score("banana, info", {"answer": "banana, info"})[0] == 1.0
        assert verifier.score("nan", {"answer": "Nan"})[1] != "not a number"


@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(LENIENT))
def test_families_with_lenient_verifiers_warn(family: str) -> None:
    with pytest.warns(LenientVerifierWarning, match=f"'{family}' is lenient: .*Do not reward a model by it"):
        task = built(family=family, size=4)
    rewarded = [task.grade(item, "<answer>0</answer>").correct for item in task.items() if item.data["answer"] != "0"]
    assert any(rewarded)  # if not, the library was fixed: remove the family from LENIENT
    task._verifier.close()
